// Matrices whose number of columns is not a multiple of the width of `multiply`.
#pragma once

#include <vector>

#include "multiply.h"

namespace neuroae {
namespace NEUROAE_ISA {

inline int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Divides the columns of a matrix into panels for `multiply`: 2 W wide, and narrower ones at the end.
struct Panels {
    struct Panel {
        int64_t first, width;
    };
    explicit Panels(int64_t columns) {
        for (int64_t first = 0; first < columns; first += list.back().width) {
            int64_t width = 4;
            while (width < columns - first && width < 2 * W) width *= 2;
            if (width == 2 * W && columns - first < width) width = W;
            list.push_back({first, width});
        }
    }
    // Length of a row: the panels, filled up to whole vectors.
    int64_t row() const { return round_up(list.empty() ? 0 : list.back().first + list.back().width, W); }

    std::vector<Panel> list;
};

template <class E>
inline void multiply_panel(const E* a, int64_t a_row, int64_t a_step, const E* b, int64_t b_step, int64_t length,
                           float* out, int64_t out_row, bool add, int64_t width) {
    if (width == 2 * W) return multiply<VF, 2>(a, a_row, a_step, b, b_step, length, out, out_row, add);
    if (width == W) return multiply<VF, 1>(a, a_row, a_step, b, b_step, length, out, out_row, add);
    if constexpr (W > 8)
        if (width == 8) return multiply<Vectors<8>::F, 1>(a, a_row, a_step, b, b_step, length, out, out_row, add);
    if constexpr (W > 4) multiply<Vectors<4>::F, 1>(a, a_row, a_step, b, b_step, length, out, out_row, add);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
