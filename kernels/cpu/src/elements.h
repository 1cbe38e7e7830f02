// The elements of matrix products: floats, or pairs of bfloat16 numbers where the processor multiplies them.
#pragma once

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

// Two bfloat16 numbers in the place of a float, neighbours along the sum: a product of pairs is a sum of two products.
struct Pair {
    bfloat16 first, second;
};

template <class E>
constexpr int kNumbers = 1;  // numbers in an element
template <>
inline constexpr int kNumbers<Pair> = 2;

template <class E>
inline int64_t elements(int64_t numbers) {
    return (numbers + kNumbers<E> - 1) / kNumbers<E>;
}

// sum += x * column, with the same x for all lanes.
template <class V>
inline void add_product(V& sum, float x, const V& column) {
    sum += (x - V{}) * column;
}

// Writes the first n lanes of v to adjacent elements.
inline void write_lanes(float* target, VF v, int, int64_t n) { store_lanes(target, v, n); }

// Writes v to a row of a matrix from number c on; neighbours in the row belong to one sum.
inline void write_row(float* row, int64_t c, VF v) { store(row + c, v); }

#if defined(__AVX512BF16__)
// The elements for gradients of bfloat16 maps.
using Rounded = Pair;

inline int32_t bits(Pair x) { return load<int32_t>(&x); }
inline void add_product(Vectors<16>::F& sum, Pair x, const Vectors<16>::F& column) {
    sum = (Vectors<16>::F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(bits(x)), (__m512bh)column);
}
inline void add_product(Vectors<8>::F& sum, Pair x, const Vectors<8>::F& column) {
    sum = (Vectors<8>::F)_mm256_dpbf16_ps((__m256)sum, (__m256bh)_mm256_set1_epi32(bits(x)), (__m256bh)column);
}
inline void add_product(Vectors<4>::F& sum, Pair x, const Vectors<4>::F& column) {
    sum = (Vectors<4>::F)_mm_dpbf16_ps((__m128)sum, (__m128bh)_mm_set1_epi32(bits(x)), (__m128bh)column);
}

// Writes the first (0) or the second (1) number of each lane's pair. Writing the first clears the second.
inline void write_lanes(Pair* target, VF v, int which, int64_t n) {
    float* lanes = reinterpret_cast<float*>(target);
    const VU rounded = round_bits(v);
    const VU pairs = which ? (VU)load_lanes(lanes, n) | (rounded << 16) : rounded;
    store_lanes(lanes, (VF)pairs, n);
}

inline void write_row(Pair* row, int64_t c, VF v) {
    store(row + c / 2, _mm512_cvtneps_pbh((__m512)v));
}
#else
using Rounded = float;
#endif

}  // namespace NEUROAE_ISA
}  // namespace neuroae
