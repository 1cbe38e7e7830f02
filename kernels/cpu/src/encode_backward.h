// From the gradient to a code's values to that of the image: the white-box near-full-gradient attack's (W-NFGA, paper,
// section 4).
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace neuroae {
namespace NEUROAE_ISA {

// 1 / cosh^2, without overflow.
inline double sech_squared(double x) {
    const double e = std::exp(-2.0 * std::fabs(x));
    return 4.0 * e / ((1.0 + e) * (1.0 + e));
}

// The derivative that replaces the quantizer's (SURROGATES in kernels/ops/encoder.py).
inline double surrogate_derivative(double a, double norm, double dead_zone, const Gradient& gradient) {
    if (gradient.surrogate == kIdentity) return 1.0;
    const bool smooth = gradient.surrogate == kSmooth;
    const double width = smooth ? gradient.sigma : gradient.sigma * norm;
    const double bumps = sech_squared((a - dead_zone) / width) + sech_squared((a + dead_zone) / width);
    return (smooth ? norm : 1.0) / (2.0 * gradient.sigma) * bumps;
}

// Adds up one patch's survivors in `target`. Returns false for an atom that the dictionary does not have.
inline bool patch_gradient(const float* grad_value, const Code& code, int64_t slot, const Dictionary& dictionary,
                           const Gradient& gradient, int64_t length, float* target) {
    std::memset(target, 0, length * sizeof(float));
    for (int64_t s = slot * code.top_t, end = code.end(slot); s < end; ++s) {
        const int64_t l = code.index[s];
        if (l < 0 || l >= dictionary.count) return false;
        const double a = code.projection[s];
        double g = grad_value[s];
        if (gradient.quantize) g *= surrogate_derivative(a, dictionary.norms[l], dictionary.dead_zone[l], gradient);
        if (!gradient.is_signed) g *= (a > 0) - (a < 0);
        axpy(dictionary.atoms + l * length, static_cast<float>(g), length, target);
    }
    return true;
}

// Adds the gradient of patch (i, j), (C, n, n), to its place in an image.
inline void add_patch(const float* source, const Dictionary& dictionary, int64_t i, int64_t j, int64_t height,
                      int64_t width, float* image) {
    const int64_t n = dictionary.patch;
    for (int64_t channel = 0; channel < dictionary.channels; ++channel) {
        float* target = image + (channel * height + i * dictionary.stride) * width + j * dictionary.stride;
        for (int64_t y = 0; y < n; ++y, target += width, source += n)
            for (int64_t x = 0; x < n; ++x) target[x] += source[x];
    }
}

inline int32_t encode_backward(const float* grad_value, const Code& code, const Dictionary& dictionary,
                               const Gradient& gradient, float* out, int threads) {
    const int64_t channels = dictionary.channels, length = channels * dictionary.patch * dictionary.patch;
    const int64_t height = gradient.height, width = gradient.width, image_size = channels * height * width;
    std::vector<int32_t> status(gradient.images, kOk);
    parallel_for(gradient.images, threads, [&](int64_t begin, int64_t end) {
        std::vector<float> patch(length);
        std::memset(out + begin * image_size, 0, (end - begin) * image_size * sizeof(float));
        for (int64_t image = begin; image < end; ++image) {
            for (int64_t row = image; row < code.rows; row += gradient.images) {
                for (int64_t p = 0; p < code.patches_h * code.patches_w; ++p) {
                    const int64_t slot = row * code.patches_h * code.patches_w + p;
                    if (code.count[slot] <= 0) continue;
                    if (!patch_gradient(grad_value, code, slot, dictionary, gradient, length, patch.data())) {
                        status[image] = kBadIndex;
                        continue;
                    }
                    add_patch(patch.data(), dictionary, p / code.patches_w, p % code.patches_w, height, width,
                              out + image * image_size);
                }
            }
        }
    });
    for (int32_t s : status)
        if (s != kOk) return s;
    return kOk;
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
