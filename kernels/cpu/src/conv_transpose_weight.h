// Backward of the transposed convolution to weight and bias.
//
// Survivors are grouped by atom, so that one thread adds up an atom's gradient, in a fixed order. A few images are
// processed at a time, so that their output gradients stay in the cache while all atoms gather from them.
#pragma once

#include "conv_transpose.h"
#include "pixel_sums.h"

namespace neuroae {
namespace NEUROAE_ISA {

constexpr int64_t kChunkBytes = 6 << 20;

// The non-zero values of rows first .. first + rows - 1, grouped by atom, in the order of rows, patches and slots.
struct Grouped {
    struct Entry {
        int64_t slot;  // patch, counted from the first row
        float value;
    };
    std::vector<int64_t> begin;  // the first entry of each atom
    std::vector<Entry> entries;

    bool read(const Code& code, int64_t atoms, int64_t first, int64_t rows) {
        const int64_t patches = code.patches_h * code.patches_w;
        begin.assign(atoms + 1, 0);
        for (int pass = 0; pass < 2; ++pass) {
            for (int64_t slot = 0; slot < rows * patches; ++slot) {
                const int64_t patch = first * patches + slot;
                for (int64_t s = patch * code.top_t, end = code.end(patch); s < end; ++s) {
                    if (code.index[s] < 0 || code.index[s] >= atoms) return false;
                    if (code.value[s] == 0.0f) continue;
                    if (pass == 0) {
                        ++begin[code.index[s] + 1];
                    } else {
                        entries[next[code.index[s]]++] = {slot, code.value[s]};
                    }
                }
            }
            if (pass == 0) {
                for (int64_t atom = 0; atom < atoms; ++atom) begin[atom + 1] += begin[atom];
                entries.resize(begin[atoms]);
                next.assign(begin.begin(), begin.end());
            }
        }
        return true;
    }

    // The largest number of entries of an atom.
    int64_t largest() const {
        int64_t most = 0;
        for (size_t atom = 0; atom + 1 < begin.size(); ++atom) most = std::max(most, begin[atom + 1] - begin[atom]);
        return most;
    }

  private:
    std::vector<int64_t> next;
};

// Copies the gradients of some images, masked by ReLU, and adds up the pixels of each image.
template <class T>
void load_images(const T* grad, const T* output, const Layer& layer, int64_t first, int64_t rows, T* target,
                 float* pixel_sums, int threads) {
    const int64_t size = layer.height * layer.width * layer.channels;
    parallel_for(rows, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t source = (first + row) * size;
            T* image = target + row * size;
            float* sums = pixel_sums + row * layer.channels;
            load_gradient(grad + source, output ? output + source : nullptr, size, image);
            std::memset(sums, 0, layer.channels * sizeof(float));
            for (int64_t y = 0; y < layer.height; ++y) {
                const T* line = image + y * layer.width * layer.channels;
                add_row(layer.width, layer.channels, sums, [&](int64_t x, int64_t c, int64_t valid) {
                    return load_lanes(line + x * layer.channels + c, valid);
                });
            }
        }
    });
}

// Adds the gradient of the images in `grad` to one kernel row of an atom's weights. Survivors at the edges of a padded
// layer, whose row is partly outside the output, are added first; all others are then added up in registers.
template <class T>
void add_row_gradient(const T* grad, const Code& code, const Layer& layer, const Grouped& grouped, int64_t atom,
                      int64_t tap, Survivors<T>& inner, float* out) {
    const int64_t patches = code.patches_h * code.patches_w;
    inner.count = 0;
    for (int64_t e = grouped.begin[atom]; e < grouped.begin[atom + 1]; ++e) {
        const auto [slot, value] = grouped.entries[e];
        const int64_t patch = slot % patches;
        const Span down(patch / code.patches_w, layer.kernel_h, layer.stride_h, layer.padding_h, layer.height);
        const Span across(patch % code.patches_w, layer.kernel_w, layer.stride_w, layer.padding_w, layer.width);
        if (tap < down.first || tap >= down.first + down.taps || across.taps <= 0) continue;
        const int64_t y = slot / patches * layer.height + down.start + tap - down.first;
        const T* source = grad + (y * layer.width + across.start) * layer.channels;
        if (across.taps == layer.kernel_w) {
            inner.add(source, value);
        } else {
            axpy(source, value, across.taps * layer.channels, out + across.first * layer.channels);
        }
    }
    accumulate(inner, 0, layer.kernel_w * layer.channels, out);
}

template <class T>
int32_t conv_transpose_backward_weight_as(const T* grad, const T* output, const Code& code, const Layer& layer,
                                          float* grad_weight, float* grad_bias, int threads) {
    const int64_t image_size = layer.height * layer.width * layer.channels;
    const int64_t atom_size = layer.kernel_h * layer.kernel_w * layer.channels;
    const int64_t chunk = std::max<int64_t>(1, kChunkBytes / (image_size * static_cast<int64_t>(sizeof(T))));
    expect_writes(grad_weight, layer.atoms * atom_size * sizeof(float));
    parallel_for(layer.atoms, threads, [&](int64_t begin, int64_t end) {
        std::memset(grad_weight + begin * atom_size, 0, (end - begin) * atom_size * sizeof(float));
    });
    std::memset(grad_bias, 0, layer.channels * sizeof(float));
    std::vector<T> images(std::min(chunk, code.rows) * image_size);
    std::vector<float> pixel_sums(std::min(chunk, code.rows) * layer.channels);
    Grouped grouped;
    for (int64_t first = 0; first < code.rows; first += chunk) {
        const int64_t rows = std::min(chunk, code.rows - first);
        if (!grouped.read(code, layer.atoms, first, rows)) return kBadIndex;
        load_images(grad, output, layer, first, rows, images.data(), pixel_sums.data(), threads);
        for (int64_t i = 0; i < rows * layer.channels; ++i) grad_bias[i % layer.channels] += pixel_sums[i];
        // Atoms survive more or less often: each thread gets atoms with an equal share of the entries.
        const int64_t total = static_cast<int64_t>(grouped.entries.size());
        parallel_for(total, threads, [&](int64_t begin, int64_t end) {
            const auto from = std::lower_bound(grouped.begin.begin(), grouped.begin.end() - 1, begin);
            const auto to = std::lower_bound(grouped.begin.begin(), grouped.begin.end() - 1, end);
            Survivors<T> inner(grouped.largest());
            for (int64_t atom = from - grouped.begin.begin(); atom < to - grouped.begin.begin(); ++atom)
                for (int64_t tap = 0; tap < layer.kernel_h; ++tap)
                    add_row_gradient(images.data(), code, layer, grouped, atom, tap, inner,
                                     grad_weight + (atom * layer.kernel_h + tap) * layer.kernel_w * layer.channels);
        });
    }
    return kOk;
}

inline int32_t conv_transpose_backward_weight(const void* grad, const void* output, const Code& code,
                                              const Layer& layer, float* grad_weight, float* grad_bias, int threads) {
    if (layer.dtype == kBFloat16)
        return conv_transpose_backward_weight_as(static_cast<const bfloat16*>(grad),
                                                 static_cast<const bfloat16*>(output), code, layer, grad_weight,
                                                 grad_bias, threads);
    return conv_transpose_backward_weight_as(static_cast<const float*>(grad), static_cast<const float*>(output), code,
                                             layer, grad_weight, grad_bias, threads);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
