// The T largest in absolute value, ties to the lower atom, in ascending order of atoms.
#pragma once

#include <vector>

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

// Non-negative floats have the order of their bits as integers, so magnitudes are compared as integers.
inline VI magnitude_bits(const float* row) { return load<VI>(row) & 0x7fffffff; }

// Counts the magnitudes of at least `bound`, which is above 0; `length` is a multiple of W.
inline int64_t count_at_least(const float* row, int64_t length, int32_t bound) {
    VI less = VI{};
    for (int64_t i = 0; i < length; i += W) less += (magnitude_bits(row + i) - bound) >> 31;
    return length + sum(less);
}

inline int32_t largest_magnitude(const float* row, int64_t length) {
    VI high = VI{};
    for (int64_t i = 0; i < length; i += W) {
        VI bits = magnitude_bits(row + i), more = (high - bits) >> 31;
        high = (bits & more) | (high & ~more);
    }
    int32_t lanes[W], result = 0;
    store(lanes, high);
    for (int32_t lane : lanes) result = lane > result ? lane : result;
    return result;
}

struct Cut {
    int32_t bound;  // all magnitudes above it are selected
    int64_t ties;   // and this many equal to it, from the lowest atom on
};

// Finds the cut by a search over the bit patterns, which ends early at a bound that exactly T magnitudes reach. Once
// few magnitudes are left between its ends, the search continues on those alone.
class CutFinder {
  public:
    CutFinder() : few(kFew + 2 * W), numbers(kFew + 2 * W) {}

    // `row` holds `padded` projections, zeros from `count` on.
    Cut find(const float* row, int64_t padded, int64_t count, int64_t top_t) {
        if (top_t == count) return {-1, 0};
        const float* values = row;
        int64_t length = padded, above = 0;  // `above` entries of the row reach the upper end and are not in `values`
        const int32_t largest = largest_magnitude(row, padded);
        Ends ends{0, largest + 1, padded, 0};
        for (int steps = 0; ends.high - ends.low > 1; ++steps) {
            const int32_t middle = steps < kGuesses ? guess(ends, top_t) : ends.low + (ends.high - ends.low) / 2;
            const int64_t reached = above + count_at_least(values, length, middle);
            if (reached == top_t) return remember(middle - 1, 0, largest);
            if (reached > top_t) {
                ends.low = middle;
                ends.reach_low = reached;
            } else {
                ends.high = middle;
                ends.reach_high = reached;
            }
            if (values == row && ends.reach_low - ends.reach_high <= kFew) {
                length = copy_between(row, padded, ends.low, ends.high);
                values = few.data();
                above = ends.reach_high;
            }
        }
        return remember(ends.low, top_t - ends.reach_high, largest);
    }

  private:
    static constexpr int64_t kFew = 128;
    static constexpr int kGuesses = 12;  // afterwards plain bisection, which always ends

    // More than T magnitudes reach `low`, `reach_low` of them, and fewer than T reach `high`.
    struct Ends {
        int32_t low, high;
        int64_t reach_low, reach_high;
    };

    // Neighbouring patches are similar, so the first guess is as far below the largest magnitude as the last cut was.
    // The next guesses go down in growing steps until there is a lower end. Then a guess is where the T-th magnitude
    // would be if all between the ends were evenly spread.
    int32_t guess(const Ends& ends, int64_t top_t) {
        if (ends.low == 0) {
            step = step < (1 << 28) ? 2 * step : step;
            return ends.high > 2 * step ? ends.high - step : ends.high / 2;
        }
        const int64_t width = ends.high - ends.low, inside = ends.reach_low - ends.reach_high;
        const int64_t offset = width * (ends.reach_low - top_t) / inside;
        return ends.low + static_cast<int32_t>(offset < 1 ? 1 : offset > width - 1 ? width - 1 : offset);
    }

    // Returns a cut, and remembers how far it is below the largest magnitude.
    Cut remember(int32_t bound, int64_t ties, int32_t largest) {
        step = (largest - bound) / 2 + 1;
        return {bound, ties};
    }

    // Copies the values with magnitudes in [low, high), and zeros to fill a vector; returns the padded number.
    int64_t copy_between(const float* row, int64_t padded, int32_t low, int32_t high) {
        int64_t copied = 0;
        for (int64_t i = 0; i < padded; i += W) {
            VI bits = magnitude_bits(row + i);
            copied += compress((bits >= low) & (bits < high), load<VF>(row + i), 0, few.data() + copied,
                               numbers.data() + copied);
        }
        store(few.data() + copied, VF{});
        return (copied + W - 1) / W * W;
    }

    int32_t step = 1 << 22;
    std::vector<float> few;
    std::vector<int32_t> numbers;
};

// Writes the T selected projections and their atoms. The targets need room for top_t + W elements.
inline void write_top(const float* row, int64_t padded, Cut cut, int64_t top_t, float* projection, int32_t* atom) {
    int64_t written = 0;
    for (int64_t i = 0; i < padded && written < top_t; i += W) {
        VI bits = magnitude_bits(row + i);
        VI selected = bits > cut.bound;
        if (cut.ties > 0) {
            for (int lane = 0; lane < W && cut.ties > 0; ++lane)
                if (bits[lane] == cut.bound) selected[lane] = -1, --cut.ties;
        }
        written += compress(selected, load<VF>(row + i), static_cast<int>(i), projection + written, atom + written);
    }
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
