// The T largest in absolute value, ties to the lower atom, in ascending order of atoms.
#pragma once

#include <vector>

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

// The bits of non-negative floats are ordered as the floats are, so magnitudes are compared as integers.
inline VI magnitude_bits(const float* row) { return load<VI>(row) & 0x7fffffff; }

// How many of `length` (a multiple of W) magnitudes are at least `bound`, which is above 0.
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
    int32_t bound;  // everything above is taken
    int64_t ties;   // and so many of those at it, from the lowest atom
};

// Finds the cut by bisection over the bit patterns. It ends early at a bound that exactly T reach, and once few
// magnitudes are left between its ends it goes on with those alone.
class CutFinder {
  public:
    CutFinder() : few(kFew + 2 * W), numbers(kFew + 2 * W) {}

    // `row` holds `padded` projections, zeros from `count` on.
    Cut find(const float* row, int64_t padded, int64_t count, int64_t top_t) {
        if (top_t == count) return {-1, 0};
        const float* values = row;
        int64_t length = padded, above = 0;  // `above` of the row are not in `values` and reach `high`
        int32_t low = 0, high = largest_magnitude(row, padded) + 1;
        int64_t reach_low = padded, reach_high = 0;
        while (high - low > 1) {
            const int32_t middle = low == 0 && high > 2 * kOctave ? high - kOctave : low + (high - low) / 2;
            const int64_t reached = above + count_at_least(values, length, middle);
            if (reached == top_t) return {middle - 1, 0};
            (reached > top_t ? low : high) = middle;
            (reached > top_t ? reach_low : reach_high) = reached;
            if (values == row && reach_low - reach_high <= kFew) {
                length = keep_between(row, padded, low, high);
                values = few.data();
                above = reach_high;
            }
        }
        return {low, top_t - reach_high};
    }

  private:
    static constexpr int64_t kFew = 128;
    static constexpr int32_t kOctave = 1 << 23;  // until there is a lower end, look a factor of 2 further down

    // Copies the values with magnitudes in [low, high), filled up with zeros; returns the padded number.
    int64_t keep_between(const float* row, int64_t padded, int32_t low, int32_t high) {
        int64_t kept = 0;
        for (int64_t i = 0; i < padded; i += W) {
            VI bits = magnitude_bits(row + i);
            kept += compress((bits >= low) & (bits < high), load<VF>(row + i), 0, few.data() + kept,
                             numbers.data() + kept);
        }
        store(few.data() + kept, VF{});
        return (kept + W - 1) / W * W;
    }

    std::vector<float> few;
    std::vector<int32_t> numbers;
};

// The targets need room for top_t + W elements.
inline void take_top(const float* row, int64_t padded, Cut cut, int64_t top_t, float* projection, int32_t* atom) {
    int64_t taken = 0;
    for (int64_t i = 0; i < padded && taken < top_t; i += W) {
        VI bits = magnitude_bits(row + i);
        VI take = bits > cut.bound;
        if (cut.ties > 0) {
            for (int lane = 0; lane < W && cut.ties > 0; ++lane)
                if (bits[lane] == cut.bound) take[lane] = -1, --cut.ties;
        }
        taken += compress(take, load<VF>(row + i), static_cast<int>(i), projection + taken, atom + taken);
    }
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
