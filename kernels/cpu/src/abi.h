// The C ABI of the C++ backend, and the table through which api.cpp reaches the kernels of one instruction set.
// kernels/cpu/library.py repeats the structures.
//
// Shapes are those of kernels/ops: B images, rows = realizations * B with row r * B + b, m_h * m_w patches in an image,
// L atoms, room for T survivors in each patch. All tensors are contiguous. Outputs and weights of the transposed
// convolution are channels_last: (rows, H, W, C_out) and (L, k_h, k_w, C_out) in memory.
#pragma once

#include <cstdint>

namespace neuroae {

enum Status : int32_t { kOk = 0, kBadImage = 1, kBadIndex = 2, kNoMemory = 3, kForked = 4 };
enum Surrogate : int32_t { kIdentity = 0, kSmooth = 1, kSmoothNormalized = 2 };
enum DType : int32_t { kFloat32 = 0, kBFloat16 = 1 };

struct Images {
    const float* pixels;  // (count, channels, height, width), values in [low, high]
    int64_t count, channels, height, width;
    float low, high;
};

struct Dictionary {
    const float* atoms;      // (count, channels, patch, patch)
    const float* norms;      // (count,), null where not needed
    const float* dead_zone;  // (count,), null where not needed
    int64_t count, channels, patch, stride;
};

struct Draws {
    const int64_t* image_ids;  // one for each image
    int64_t seed, start;
    uint64_t drop_below;  // a coefficient is dropped if its word is below this, which is at most 2^32
    int32_t quantize, is_signed;
};

struct Selection {
    int16_t* atom;      // (images, m_h, m_w, T), ascending
    float* projection;  // the same shape
    int64_t images, patches_h, patches_w, top_t;
};

struct Code {
    int16_t* index;     // (rows, m_h, m_w, T)
    float* value;       // the same shape
    float* projection;  // the same shape
    int32_t* count;     // (rows, m_h, m_w), the number of slots in use; the others hold anything
    int64_t rows, patches_h, patches_w, top_t;

    // The slot after the last one in use of a patch.
    int64_t end(int64_t patch) const {
        return patch * top_t + (count[patch] < top_t ? count[patch] : static_cast<int32_t>(top_t));
    }
};

struct Gradient {
    int64_t images, height, width;  // of the image gradient; row k of the code belongs to image k % images
    int32_t surrogate, quantize, is_signed;
    double sigma;
};

struct Membership {
    const float* grad_code;  // (images, m_h, m_w, L), to all entries of the dense code
    int64_t patches_h, patches_w, top_t;
    float width;  // of the logistic function that replaces the cut
    int32_t quantize, is_signed;
};

struct Layer {
    const void* weight;  // (atoms, kernel_h, kernel_w, channels)
    const float* bias;   // (channels,) or null
    int32_t dtype;       // of weight, output and gradient of the output
    int32_t relu;
    int64_t atoms, channels, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
    int64_t height, width;  // of the output
};

// Feature maps, (rows, height, width, channels).
struct Maps {
    const void* data;
    const void* positive;  // null, or maps of the same shape: `data` counts as 0 where these are not positive
    int32_t dtype;         // of both
    int64_t rows, height, width, channels;
};

// 3 x 3 filters with stride 1.
struct Filters {
    const float* weight;  // (inputs, 3, 3, outputs)
    const float* bias;    // (outputs,) or null
    int64_t inputs, outputs, padding;
    int32_t flipped;  // taps from last to first, in both directions
    int32_t relu;
    int32_t rounded;  // for bfloat16 maps, factors may be rounded to bfloat16
};

// The kernels of one instruction set. `threads` is the maximum number of threads.
struct Kernels {
    const char* name;
    int32_t (*select)(const Images&, const Dictionary&, const Selection&, int threads);
    int32_t (*draw)(const Selection&, const Dictionary&, const Draws&, const Code&, int threads);
    int32_t (*encode)(const Images&, const Dictionary&, const Draws&, const Code&, int threads);
    int32_t (*encode_backward)(const float* grad_value, const Code&, const Dictionary&, const Gradient&, float* out,
                               int threads);
    int32_t (*selection_backward)(const Images&, const Dictionary&, const Membership&, float* out, int threads);
    int32_t (*conv_transpose)(const Code&, const Layer&, void* out, int threads);
    int32_t (*conv_transpose_backward_value)(const void* grad, const void* output, const Code&, const Layer&,
                                             float* grad_value, int threads);
    int32_t (*conv_transpose_backward_weight)(const void* grad, const void* output, const Code&, const Layer&,
                                              float* grad_weight, float* grad_bias, int threads);
    int32_t (*convolve)(const Maps&, const Filters&, void* out, int threads);
    int32_t (*convolve_backward_weight)(const Maps& moved, const Maps& fixed, float* grad_weight, float* map_sums,
                                        int threads);
};

}  // namespace neuroae
