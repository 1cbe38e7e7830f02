// Sums over the pixels of feature maps, channel by channel: the gradients of biases.
#pragma once

#include <algorithm>

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

// Adds the pixels of one row of a map to `sums`, one number a channel; read(x, c, n) gives n channels from c on of pixel
// x. A row is one chain of additions and the rows are another: a single one would round away what pixels add to a
// large sum.
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
