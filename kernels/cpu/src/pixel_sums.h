// Sums over the pixels of feature maps, channel by channel: the gradients of biases.
#pragma once

#include <algorithm>

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

// Adds the pixels of one row of a map to `sums`, one number for each channel; read(x, c, n) returns n channels of pixel
// x from channel c on. Pixels are added up within a row, and rows to each other: in a single chain, rounding would lose
// what pixels add to a large sum.
template <class Read>
void add_row(int64_t width, int64_t channels, float* sums, Read&& read) {
    for (int64_t c = 0; c < channels; c += W) {
        const int64_t valid = std::min<int64_t>(W, channels - c);
        VF row = {};
        for (int64_t x = 0; x < width; ++x) row += read(x, c, valid);
        store_lanes(sums + c, load_lanes(sums + c, valid) + row, valid);
    }
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
