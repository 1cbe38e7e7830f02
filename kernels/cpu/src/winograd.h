// Dense 3 x 3 convolution with stride 1: Winograd's filtering on tiles of 4 x 4 outputs.
//
// Tiles are processed in blocks: their inputs are transformed, 36 matrix products (one for each point of the transform)
// sum over the channels, and the results are transformed back. A block's numbers stay in the second-level cache between
// these steps. A tile's outputs depend only on its own inputs, whatever the block and the number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "abi.h"
#include "memory.h"
#include "panels.h"
#include "threads.h"
#include "winograd_transforms.h"

namespace neuroae {
namespace NEUROAE_ISA {

constexpr int64_t kBlockBytes = 1 << 20;  // size of a block's transformed inputs and products, in each thread
constexpr int64_t kAhead = 4 * W;         // how many channels ahead memory is fetched into the cache

// Tiles of 4 x 4 that cover `rows` maps of height x width, numbered by map, then from the top, then from the left.
struct Tiling {
    Tiling(int64_t rows, int64_t height, int64_t width)
        : rows(rows),
          height(height),
          width(width),
          down((height + kOutputs - 1) / kOutputs),
          across((width + kOutputs - 1) / kOutputs),
          total(rows * down * across) {}

    struct Place {
        int64_t row, top, left;
    };
    Place place(int64_t tile) const {
        const int64_t inside = tile % (down * across);
        return {tile / (down * across), inside / across * kOutputs, inside % across * kOutputs};
    }

    const int64_t rows, height, width, down, across, total;
};

// (points, tiles, values) elements: `values` for each tile of a block, at 36 points. The distance between points has a
// cache line added, so that it is no multiple of a page: the points of one tile then go to different sets of the cache.
template <class E>
struct Block {
    Block(int64_t tiles, int64_t values) : values(values), point(tiles * values + 16), memory(kPoints * point + W) {}
    E* at(int64_t p, int64_t tile) const { return memory.data() + p * point + tile * values; }

    const int64_t values, point;
    const Scratch<E> memory;
};

// Filters after G g G^T, panel by panel: (points, panels, inputs, width), where `inputs` counts elements.
template <class E>
class PackedFilters {
  public:
    PackedFilters(const Filters& filters, int threads)
        : panels(filters.outputs),
          inputs(elements<E>(filters.inputs)),
          point(inputs * panels.row() + 16),
          memory(kPoints * point + W) {
        parallel_for(inputs, threads, [&](int64_t begin, int64_t end) {
            for (int64_t c = begin * kNumbers<E>; c < std::min(end * kNumbers<E>, filters.inputs); ++c)
                for (const Panels::Panel& panel : panels.list)
                    for (int64_t v = 0; v < panel.width; v += W) pack(filters, c, panel, v);
        });
    }
    const E* panel(int64_t p, const Panels::Panel& panel) const {
        return memory.data() + p * point + panel.first * inputs;
    }

    const Panels panels;
    const int64_t inputs;

  private:
    void pack(const Filters& filters, int64_t c, const Panels::Panel& panel, int64_t v) {
        const int64_t k = panel.first + v, outputs = filters.outputs;
        const int64_t valid = std::clamp<int64_t>(outputs - k, 0, W), stored = std::min<int64_t>(W, panel.width);
        const int64_t last = kTaps - 1;
        apply<FilterTransform>(
            [&](int i, int j) {
                const int64_t tap = filters.flipped ? (last - i) * kTaps + last - j : i * kTaps + j;
                return load_part(filters.weight + (c * kTaps * kTaps + tap) * outputs + k, valid);
            },
            [&](int i, int j, VF u) {
                E* row = memory.data() + (i * kInputs + j) * point + panel.first * inputs;
                write_lanes(row + c / kNumbers<E> * panel.width + v, u, c % kNumbers<E>, stored);
            });
    }

    const int64_t point;
    const Scratch<E> memory;
};

// Sums over the channels are sums of chains of equal length, at most kChain elements: shorter chains round less, and
// their part of a panel stays in the first-level cache.
template <class E>
void multiply_block(const Block<E>& inputs, const PackedFilters<E>& packed, int64_t tiles,
                    const Block<float>& products) {
    const int64_t chains = (packed.inputs + kChain - 1) / kChain, chain = (packed.inputs + chains - 1) / chains;
    for (int64_t p = 0; p < kPoints; ++p)
        for (const Panels::Panel& panel : packed.panels.list)
            for (int64_t c = 0; c < packed.inputs; c += chain)
                for (int64_t t = 0; t < tiles; t += R)
                    multiply_panel(inputs.at(p, t) + c, inputs.values, 1, packed.panel(p, panel) + c * panel.width,
                                   panel.width, std::min(chain, packed.inputs - c), products.at(p, t) + panel.first,
                                   products.values, c > 0, panel.width);
}

// The 6 x 6 inputs of a tile after B^T d B: write(p, c, v) receives point p of the channels from c on. Pixels outside
// the maps count as 0.
template <class T>
class InputTile {
  public:
    InputTile(const Maps& maps, int64_t padding) : maps(maps), padding(padding), zeros(maps.channels) {}

    template <class Write>
    void transform(const Tiling::Place& place, Write&& write) {
        for (int i = 0; i < kInputs; ++i)
            for (int j = 0; j < kInputs; ++j) point_to(place, i, j);
        for (int64_t c = 0; c < maps.channels; c += W) {
            const int64_t valid = std::min<int64_t>(W, maps.channels - c);
            fetch_ahead(c);
            apply<InputTransform>(
                [&](int i, int j) {
                    const int p = i * kInputs + j;
                    const VF v = load_lanes(pixels[p] + c, valid);
                    return maps.positive ? where_positive(v, load_lanes(outputs[p] + c, valid)) : v;
                },
                [&](int i, int j, VF v) { write(i * kInputs + j, c, v); });
        }
    }

  private:
    // The processor prefetches fewer streams than a tile has pixels. Two vectors of bfloat16 are one cache line.
    void fetch_ahead(int64_t c) {
        if (c % (2 * W) != 0) return;
        for (const T* pixel : pixels) __builtin_prefetch(pixel + c + kAhead);
    }
    void point_to(const Tiling::Place& place, int i, int j) {
        const int64_t y = place.top + i - padding, x = place.left + j - padding;
        const bool inside = y >= 0 && y < maps.height && x >= 0 && x < maps.width;
        const int64_t offset = ((place.row * maps.height + y) * maps.width + x) * maps.channels;
        pixels[i * kInputs + j] = inside ? static_cast<const T*>(maps.data) + offset : zeros.data();
        outputs[i * kInputs + j] = inside && maps.positive ? static_cast<const T*>(maps.positive) + offset
                                                           : zeros.data();
    }

    const Maps& maps;
    const int64_t padding;
    const std::vector<T> zeros;
    const T* pixels[kPoints];
    const T* outputs[kPoints];
};

// Writes A^T m A, with bias and ReLU, to the tile's pixels that are inside the output.
template <class T>
void write_tile(const Block<float>& products, int64_t tile, const Tiling& tiling, const Tiling::Place& place,
                const Filters& filters, T* out) {
    const int64_t height = std::min<int64_t>(kOutputs, tiling.height - place.top);
    const int64_t width = std::min<int64_t>(kOutputs, tiling.width - place.left);
    const auto pixel = [&](int i, int j) {
        const int64_t number = (place.row * tiling.height + place.top + i) * tiling.width + place.left + j;
        return out + number * filters.outputs;
    };
    for (int64_t k = 0; k < filters.outputs; k += W) {
        if (k % (2 * W) == 0)
            for (int i = 0; i < height; ++i)
                for (int j = 0; j < width; ++j) __builtin_prefetch(pixel(i, j) + k + kAhead, 1);
        const int64_t valid = std::min<int64_t>(W, filters.outputs - k);
        const VF bias = filters.bias ? load_lanes(filters.bias + k, valid) : VF{};
        apply<OutputTransform>(
            [&](int i, int j) { return load<VF>(products.at(i * kInputs + j, tile) + k); },
            [&](int i, int j, VF y) {
                if (i >= height || j >= width) return;
                y += bias;
                if (filters.relu) y = rectified(y);
                store_lanes(pixel(i, j) + k, y, valid);
            });
    }
}

// Maps and outputs are of type T, products of elements E.
template <class T, class E>
void convolve_as(const Maps& maps, const Filters& filters, T* out, int threads) {
    const Tiling tiling(maps.rows, maps.height + 2 * filters.padding - kTaps + 1,
                        maps.width + 2 * filters.padding - kTaps + 1);
    const PackedFilters<E> packed(filters, threads);
    const int64_t values = elements<E>(round_up(maps.channels, W)), results = packed.panels.row();
    const int64_t fitting = kBlockBytes / (kPoints * (values + results) * static_cast<int64_t>(sizeof(float)));
    const int64_t size = std::max<int64_t>(R, fitting / R * R);
    expect_writes(out, tiling.rows * tiling.height * tiling.width * filters.outputs * sizeof(T));
    parallel_for((tiling.total + size - 1) / size, threads, [&](int64_t begin, int64_t end) {
        InputTile<T> source(maps, filters.padding);
        const Block<E> inputs(size, values);
        const Block<float> products(size, results);
        for (int64_t first = begin * size; first < std::min(end * size, tiling.total); first += size) {
            const int64_t tiles = std::min(size, tiling.total - first);
            for (int64_t t = 0; t < tiles; ++t)
                source.transform(tiling.place(first + t),
                                 [&](int p, int64_t c, VF v) { write_row(inputs.at(p, t), c, v); });
            multiply_block(inputs, packed, tiles, products);
            for (int64_t t = 0; t < tiles; ++t)
                write_tile(products, t, tiling, tiling.place(first + t), filters, out);
        }
    });
}

inline int32_t convolve(const Maps& maps, const Filters& filters, void* out, int threads) {
    if (maps.dtype == kFloat32) {
        convolve_as<float, float>(maps, filters, static_cast<float*>(out), threads);
    } else if (filters.rounded) {
        convolve_as<bfloat16, Rounded>(maps, filters, static_cast<bfloat16*>(out), threads);
    } else {
        convolve_as<bfloat16, float>(maps, filters, static_cast<bfloat16*>(out), threads);
    }
    return kOk;
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
