// Dense 3 x 3 convolution with stride 1, backward to the filters, on the tiles of the forward pass.
//
// With V the transformed inputs and M the transformed output gradients, the gradient to U = G g G^T is the sum of V * M
// over the tiles, again one matrix product for each point. All threads transform a chunk of tiles; then each thread
// adds up some of the points over the chunk, in the order of the tiles, whatever the number of threads.
#pragma once

#include <cstring>

#include "pixel_sums.h"
#include "winograd.h"

namespace neuroae {
namespace NEUROAE_ISA {

constexpr int64_t kWeightChunkBytes = 6 << 20;

// A y A^T for the 4 x 4 pixels y of a tile: write(p, c, v) receives point p of the channels from c on. Pixels outside
// the maps count as 0.
template <class T, class Write>
void transform_fixed(const Maps& maps, const Tiling::Place& place, Write&& write) {
    const T* data = static_cast<const T*>(maps.data);
    for (int64_t c = 0; c < maps.channels; c += W) {
        const int64_t valid = std::min<int64_t>(W, maps.channels - c);
        apply<OutputGradient>(
            [&](int i, int j) {
                const int64_t y = place.top + i, x = place.left + j;
                if (y >= maps.height || x >= maps.width) return VF{};
                const T* pixel = data + ((place.row * maps.height + y) * maps.width + x) * maps.channels + c;
                return load_lanes(pixel, valid);
            },
            [&](int i, int j, VF m) { write(i * kInputs + j, c, m); });
    }
}

// Adds up the pixels of each image, then the images in their order.
template <class T>
void sum_maps(const Maps& maps, float* sums, int threads) {
    std::vector<float> each(maps.rows * maps.channels);
    const int64_t line = maps.width * maps.channels;
    parallel_for(maps.rows, threads, [&](int64_t begin, int64_t end) {
        for (int64_t y = begin * maps.height; y < end * maps.height; ++y) {
            const T* data = static_cast<const T*>(maps.data) + y * line;
            const T* positive = maps.positive ? static_cast<const T*>(maps.positive) + y * line : nullptr;
            add_row(maps.width, maps.channels, each.data() + y / maps.height * maps.channels,
                    [&](int64_t x, int64_t c, int64_t valid) {
                        const VF v = load_lanes(data + x * maps.channels + c, valid);
                        return positive ? where_positive(v, load_lanes(positive + x * maps.channels + c, valid)) : v;
                    });
        }
    });
    std::memset(sums, 0, maps.channels * sizeof(float));
    for (size_t i = 0; i < each.size(); ++i) sums[i % maps.channels] += each[i];
}

// moved: (rows, height + 2, width + 2, K), fixed: (rows, height, width, C). grad_weight: (C, 3, 3, K), the sums over
// pixels of fixed[y][x][c] * moved[y + i][x + j][k]. An element of the products holds kNumbers<E> tiles.
template <class T, class E>
void convolve_backward_weight_as(const Maps& moved, const Maps& fixed, float* grad_weight, int threads) {
    static constexpr int64_t n = kNumbers<E>;
    const Tiling tiling(fixed.rows, fixed.height, fixed.width);
    const Panels panels(moved.channels);
    const int64_t channels = round_up(fixed.channels, R), values = round_up(channels, W), row = panels.row();
    const int64_t total = elements<E>(tiling.total);
    const int64_t fitting = kWeightChunkBytes / (kPoints * (values + row) * static_cast<int64_t>(sizeof(E)));
    const int64_t size = std::clamp<int64_t>(fitting, 1, std::max<int64_t>(1, total));
    const Block<E> inputs(size, row), gradients(size, values);
    const Block<float> sums(channels, row);
    for (int64_t first = 0; first < total; first += size) {
        const int64_t length = std::min(size, total - first);
        parallel_for(length, threads, [&](int64_t begin, int64_t end) {
            InputTile<T> source(moved, 0);
            for (int64_t t = (first + begin) * n; t < std::min((first + end) * n, tiling.total); ++t) {
                const auto into = [&](const Block<E>& block) {
                    return [&block, t, first](int p, int64_t c, VF v) {
                        write_lanes(block.at(p, t / n - first) + c, v, t % n, W);
                    };
                };
                source.transform(tiling.place(t), into(inputs));
                transform_fixed<T>(fixed, tiling.place(t), into(gradients));
            }
        });
        parallel_for(kPoints, threads, [&](int64_t begin, int64_t end) {
            for (int64_t p = begin; p < end; ++p)
                for (const Panels::Panel& panel : panels.list)
                    for (int64_t c = 0; c < channels; c += R)
                        multiply_panel(gradients.at(p, 0) + c, 1, values, inputs.at(p, 0) + panel.first, row, length,
                                       sums.at(p, c) + panel.first, row, first > 0, panel.width);
        });
    }
    parallel_for(fixed.channels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c)
            for (int64_t k = 0; k < moved.channels; k += W)
                apply<FilterGradient>(
                    [&](int i, int j) {
                        return tiling.total ? load<VF>(sums.at(i * kInputs + j, c) + k) : VF{};
                    },
                    [&](int i, int j, VF g) {
                        store_part(grad_weight + ((c * kTaps + i) * kTaps + j) * moved.channels + k, g,
                                   std::min<int64_t>(W, moved.channels - k));
                    });
    });
}

inline int32_t convolve_backward_weight(const Maps& moved, const Maps& fixed, float* grad_weight, float* map_sums,
                                        int threads) {
    if (moved.dtype == kBFloat16) {
        sum_maps<bfloat16>(moved, map_sums, threads);
        convolve_backward_weight_as<bfloat16, Rounded>(moved, fixed, grad_weight, threads);
    } else {
        sum_maps<float>(moved, map_sums, threads);
        convolve_backward_weight_as<float, float>(moved, fixed, grad_weight, threads);
    }
    return kOk;
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
