// The transposed convolution of a code: forward, and backward to the code's values.
//
// The k_w x C_out weights of one atom and kernel row are contiguous, and so are the k_w output pixels that they reach.
// So a survivor takes one contiguous multiply-add for each kernel row.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "abi.h"
#include "memory.h"
#include "simd.h"
#include "threads.h"

namespace neuroae {
namespace NEUROAE_ISA {

// The part of a kernel row inside the output: taps first .. first + taps - 1, from output pixel `start` on.
struct Span {
    int64_t first, taps, start;

    Span(int64_t position, int64_t kernel, int64_t stride, int64_t padding, int64_t size) {
        const int64_t origin = position * stride - padding;
        first = std::max<int64_t>(0, -origin);
        taps = std::min(kernel, size - origin) - first;
        start = origin + first;
    }
};

// Survivors, each with its value and a pointer to the first number that the value multiplies.
template <class T>
struct Survivors {
    explicit Survivors(int64_t most) : source(most), value(most) {}

    void add(const T* first, float v) {
        source[count] = first;
        value[count++] = v;
    }

    // Reads the survivors of one patch, with pointers to the weights of their atoms. Leaves out survivors of value 0,
    // unless the code has no values. Returns false for an atom that the layer does not have.
    bool read(const Code& code, const Layer& layer, int64_t slot) {
        const int64_t atom_size = layer.kernel_h * layer.kernel_w * layer.channels;
        count = 0;
        for (int64_t s = slot * code.top_t, end = code.end(slot); s < end; ++s) {
            if (code.index[s] < 0 || code.index[s] >= layer.atoms) return false;
            const float v = code.value ? code.value[s] : 0.0f;
            if (v == 0.0f && code.value) continue;
            add(static_cast<const T*>(layer.weight) + code.index[s] * atom_size, v);
        }
        return true;
    }

    std::vector<const T*> source;
    std::vector<float> value;
    int64_t count = 0;
};

// out[i] += sum over the survivors first .. last - 1 of value * source[offset + i]. Four vectors stay in registers.
template <class T>
void accumulate_some(const Survivors<T>& survivors, int64_t first, int64_t last, int64_t offset, int64_t length,
                     float* out) {
    int64_t i = 0;
    for (; i + 4 * W <= length; i += 4 * W) {
        VF a0 = splat(0.0f), a1 = splat(0.0f), a2 = splat(0.0f), a3 = splat(0.0f);
        for (int64_t s = first; s < last; ++s) {
            const T* weight = survivors.source[s] + offset + i;
            const VF v = splat(survivors.value[s]);
            a0 += v * load_floats(weight);
            a1 += v * load_floats(weight + W);
            a2 += v * load_floats(weight + 2 * W);
            a3 += v * load_floats(weight + 3 * W);
        }
        store(out + i, load<VF>(out + i) + a0);
        store(out + i + W, load<VF>(out + i + W) + a1);
        store(out + i + 2 * W, load<VF>(out + i + 2 * W) + a2);
        store(out + i + 3 * W, load<VF>(out + i + 3 * W) + a3);
    }
    for (; i + W <= length; i += W) {
        VF a = splat(0.0f);
        for (int64_t s = first; s < last; ++s)
            a += splat(survivors.value[s]) * load_floats(survivors.source[s] + offset + i);
        store(out + i, load<VF>(out + i) + a);
    }
    for (; i < length; ++i) {
        float a = 0.0f;
        for (int64_t s = first; s < last; ++s)
            a += survivors.value[s] * to_float(survivors.source[s][offset + i]);
        out[i] += a;
    }
}

// The same for all survivors, in chains.
template <class T>
void accumulate(const Survivors<T>& survivors, int64_t offset, int64_t length, float* out) {
    for (int64_t first = 0; first < survivors.count; first += kChain)
        accumulate_some(survivors, first, std::min(first + kChain, survivors.count), offset, length, out);
}

inline void start_row(const Layer& layer, float* row) {
    if (!layer.bias) {
        std::memset(row, 0, layer.width * layer.channels * sizeof(float));
        return;
    }
    for (int64_t x = 0; x < layer.width; ++x)
        std::memcpy(row + x * layer.channels, layer.bias, layer.channels * sizeof(float));
}

// Applies ReLU if `relu` is set, and converts to the output's type.
template <class T>
void finish_row(const float* row, int64_t length, bool relu, T* out) {
    int64_t i = 0;
    for (; i + W <= length; i += W) {
        VF v = load<VF>(row + i);
        if (relu) v = rectified(v);
        store_floats(out + i, v);
    }
    for (; i < length; ++i) {
        const float v = relu && row[i] < 0.0f ? 0.0f : row[i];
        if constexpr (sizeof(T) == sizeof(float)) {
            out[i] = v;
        } else {
            out[i] = to_bfloat16(v);
        }
    }
}

template <class T>
int32_t conv_transpose_as(const Code& code, const Layer& layer, T* out, int threads) {
    const int64_t row_size = layer.width * layer.channels;
    std::atomic<int32_t> status{kOk};
    expect_writes(out, code.rows * layer.height * row_size * sizeof(T));
    parallel_for(code.rows * layer.height, threads, [&](int64_t begin, int64_t end) {
        std::vector<float> row(row_size);
        Survivors<T> survivors(code.top_t);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t y = task % layer.height + layer.padding_h, image = task / layer.height;
            start_row(layer, row.data());
            const int64_t last = std::min(code.patches_h - 1, y / layer.stride_h);
            for (int64_t i = last; i >= 0 && y - i * layer.stride_h < layer.kernel_h; --i) {
                const int64_t kernel_row = (y - i * layer.stride_h) * layer.kernel_w;
                for (int64_t j = 0; j < code.patches_w; ++j) {
                    const Span span(j, layer.kernel_w, layer.stride_w, layer.padding_w, layer.width);
                    if (span.taps <= 0) continue;
                    if (!survivors.read(code, layer, (image * code.patches_h + i) * code.patches_w + j)) {
                        status = kBadIndex;
                        return;
                    }
                    accumulate(survivors, (kernel_row + span.first) * layer.channels, span.taps * layer.channels,
                               row.data() + span.start * layer.channels);
                }
            }
            finish_row(row.data(), row_size, layer.relu != 0, out + task * row_size);
        }
    });
    return status;
}

inline int32_t conv_transpose(const Code& code, const Layer& layer, void* out, int threads) {
    if (layer.dtype == kBFloat16) return conv_transpose_as(code, layer, static_cast<bfloat16*>(out), threads);
    return conv_transpose_as(code, layer, static_cast<float*>(out), threads);
}

// Copies the gradient of `length` outputs. With `output` it is 0 where the output is not positive.
template <class T, class Target>
void load_gradient(const T* grad, const T* output, int64_t length, Target* target) {
    for (int64_t i = 0; i < length; i += W) {
        const int64_t valid = std::min<int64_t>(W, length - i);
        VF g = load_lanes(grad + i, valid);
        if (output) g = where_positive(g, load_lanes(output + i, valid));
        store_lanes(target + i, g, valid);
    }
}

template <class T>
float dot(const float* a, const T* b, int64_t length) {
    VF total[4] = {};
    int64_t i = 0;
    for (; i + 4 * W <= length; i += 4 * W)
        for (int u = 0; u < 4; ++u) total[u] += load<VF>(a + i + u * W) * load_floats(b + i + u * W);
    for (; i + W <= length; i += W) total[0] += load<VF>(a + i) * load_floats(b + i);
    float result = sum((total[0] + total[1]) + (total[2] + total[3]));
    for (; i < length; ++i) result += a[i] * to_float(b[i]);
    return result;
}

// Copies the gradient of the outputs that a patch reaches, as floats, for all its survivors. Taps outside count as 0.
template <class T>
void load_tile(const T* grad, const T* output, const Layer& layer, int64_t image, int64_t i, int64_t j, float* tile) {
    const Span down(i, layer.kernel_h, layer.stride_h, layer.padding_h, layer.height);
    const Span across(j, layer.kernel_w, layer.stride_w, layer.padding_w, layer.width);
    const int64_t row_size = layer.kernel_w * layer.channels;
    if (down.taps < layer.kernel_h || across.taps < layer.kernel_w)
        std::memset(tile, 0, layer.kernel_h * row_size * sizeof(float));
    if (across.taps <= 0) return;
    for (int64_t tap = 0; tap < down.taps; ++tap) {
        const int64_t source = ((image * layer.height + down.start + tap) * layer.width + across.start) *
                               layer.channels;
        load_gradient(grad + source, output ? output + source : nullptr, across.taps * layer.channels,
                      tile + (down.first + tap) * row_size + across.first * layer.channels);
    }
}

template <class T>
int32_t conv_transpose_backward_value_as(const T* grad, const T* output, const Code& code, const Layer& layer,
                                         float* grad_value, int threads) {
    const int64_t tile_size = layer.kernel_h * layer.kernel_w * layer.channels;
    std::atomic<int32_t> status{kOk};
    expect_writes(grad_value, code.rows * code.patches_h * code.patches_w * code.top_t * sizeof(float));
    parallel_for(code.rows * code.patches_h * code.patches_w, threads, [&](int64_t begin, int64_t end) {
        std::vector<float> tile(tile_size);
        Survivors<T> survivors(code.top_t);
        std::memset(grad_value + begin * code.top_t, 0, (end - begin) * code.top_t * sizeof(float));
        for (int64_t slot = begin; slot < end; ++slot) {
            if (!survivors.read(code, layer, slot)) {
                status = kBadIndex;
                return;
            }
            if (survivors.count == 0) continue;
            const int64_t patches = code.patches_h * code.patches_w, patch = slot % patches;
            load_tile(grad, output, layer, slot / patches, patch / code.patches_w, patch % code.patches_w,
                      tile.data());
            for (int64_t s = 0; s < survivors.count; ++s)
                grad_value[slot * code.top_t + s] = dot(tile.data(), survivors.source[s], tile_size);
        }
    });
    return status;
}

inline int32_t conv_transpose_backward_value(const void* grad, const void* output, const Code& code,
                                             const Layer& layer, float* grad_value, int threads) {
    if (layer.dtype == kBFloat16)
        return conv_transpose_backward_value_as(static_cast<const bfloat16*>(grad),
                                                static_cast<const bfloat16*>(output), code, layer, grad_value,
                                                threads);
    return conv_transpose_backward_value_as(static_cast<const float*>(grad), static_cast<const float*>(output), code,
                                            layer, grad_value, threads);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
