// Vectors of W floats for the instruction set that the including file is compiled for.
//
// Arithmetic uses the compilers' vector extension, and intrinsics only where that is not enough. a * b + c has one
// rounding wherever the instruction set has FMA (the build allows contraction).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace neuroae {
namespace NEUROAE_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

// The longest sum in one chain. Each term rounds the sum of all terms before it, so longer sums are sums of chains.
constexpr int64_t kChain = 128;

template <int N>
struct Vectors {
    typedef float F __attribute__((vector_size(N * 4)));
    typedef int32_t I __attribute__((vector_size(N * 4)));
    typedef uint32_t U __attribute__((vector_size(N * 4)));
    typedef uint16_t H __attribute__((vector_size(N * 2)));
};

using VF = Vectors<W>::F;
using VI = Vectors<W>::I;
using VU = Vectors<W>::U;
using VH = Vectors<W>::H;

template <class V>
inline V load(const void* source) {
    V v;
    std::memcpy(&v, source, sizeof v);
    return v;
}

template <class V>
inline void store(void* target, const V& v) {
    std::memcpy(target, &v, sizeof v);
}

// Subtracting zero, unlike adding it, costs nothing: it changes no number, not even minus zero.
inline VF splat(float x) { return x - VF{}; }

// Returns one bit for each lane, from lanes that are 0 or -1.
inline uint32_t lane_bits(VI v) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)v);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_ps((__m256)v));
#else
    uint32_t bits = 0;
    for (int i = 0; i < W; ++i) bits |= static_cast<uint32_t>(v[i] & 1) << i;
    return bits;
#endif
}

// The same for lanes of 64 bits.
template <class V>
inline uint32_t lane_bits64(V v) {
#if defined(__AVX512F__)
    return _mm512_movepi64_mask((__m512i)v);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)v));
#else
    uint32_t bits = 0;
    for (int i = 0; i < W / 2; ++i) bits |= static_cast<uint32_t>(v[i] & 1) << i;
    return bits;
#endif
}

// The greater of v and 0. NaN stays NaN, as in PyTorch.
inline VF rectified(VF v) { return (VF)((VI)v & ~(VI)(v < VF{})); }

// v where `output` is positive, and 0 elsewhere: the gradient of `rectified`.
inline VF where_positive(VF v, VF output) { return (VF)((VI)v & (VI)(output > VF{})); }

inline int32_t sum(VI v) {
    int32_t lanes[W], total = 0;
    store(lanes, v);
    for (int32_t lane : lanes) total += lane;
    return total;
}

// Adds up pairwise, so that the order of additions is fixed and chains are short.
inline float sum(VF v) {
    float lanes[W];
    store(lanes, v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

struct bfloat16 {
    uint16_t bits;
};

inline float to_float(float x) { return x; }

inline float to_float(bfloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline VF load_floats(const float* source) { return load<VF>(source); }

inline VF load_floats(const bfloat16* source) {
    VU wide = __builtin_convertvector(load<VH>(source), VU) << 16;
    return (VF)wide;
}

// out[i] += factor * x[i].
template <class T>
inline void axpy(const T* x, float factor, int64_t length, float* out) {
    const VF f = splat(factor);
    int64_t i = 0;
    for (; i + W <= length; i += W) store(out + i, load<VF>(out + i) + f * load_floats(x + i));
    for (; i < length; ++i) out[i] += factor * to_float(x[i]);
}

// Rounds to nearest, ties to even; NaN becomes a quiet NaN.
inline bfloat16 to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline void store_floats(float* target, VF v) { store(target, v); }

// The same for vectors, as the low 16 bits of each lane.
inline VU round_bits(VF v) {
    const VU bits = (VU)v;
    const VU rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const VU nan = (VU)(v != v);
    return (rounded & ~nan) | (nan & 0x7fc0);
}

inline void store_floats(bfloat16* target, VF v) { store(target, __builtin_convertvector(round_bits(v), VH)); }

// Loads or stores the first n lanes; the others are loaded as 0.
template <class T>
inline VF load_part(const T* source, int64_t n) {
    T lanes[W] = {};
    std::memcpy(lanes, source, n * sizeof(T));
    return load_floats(lanes);
}

template <class T>
inline void store_part(T* target, VF v, int64_t n) {
    T lanes[W];
    store_floats(lanes, v);
    std::memcpy(target, lanes, n * sizeof(T));
}

// The same where n may also be W.
template <class T>
inline VF load_lanes(const T* source, int64_t n) {
    return n == W ? load_floats(source) : load_part(source, n);
}

template <class T>
inline void store_lanes(T* target, VF v, int64_t n) {
    n == W ? store_floats(target, v) : store_part(target, v, n);
}

// Writes the lanes where `selected` is -1, and their numbers (from `first` on), to the front of the targets; returns how
// many they are. May overwrite up to W elements of each target.
inline int compress(VI selected, VF values, int first, float* value_target, int32_t* number_target) {
#if defined(__AVX512F__)
    const __mmask16 mask = static_cast<__mmask16>(lane_bits(selected));
    __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32(first),
                                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_ps(value_target, _mm512_maskz_compress_ps(mask, (__m512)values));
    _mm512_storeu_si512(number_target, _mm512_maskz_compress_epi32(mask, numbers));
    return __builtin_popcount(mask);
#else
    int written = 0;
    for (int i = 0; i < W; ++i) {
        value_target[written] = values[i];
        number_target[written] = first + i;
        written -= selected[i];
    }
    return written;
#endif
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
