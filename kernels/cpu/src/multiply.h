// The inner loop of all matrix products: a tile of the result that stays in registers.
#pragma once

#include "elements.h"

namespace neuroae {
namespace NEUROAE_ISA {

#if defined(__AVX512F__)
constexpr int R = 12;  // with two vectors a row, 24 accumulators of the 32 registers
#else
constexpr int R = 6;  // 12 accumulators of the 16 registers
#endif

// out[r][v] = sum over l of a[r * a_row + l * a_step] * b[l * b_step + v], for R rows and N vectors. With `add` the sum
// is added to `out`. Each sum is one chain of additions over l that starts at 0, whatever the tile, so it depends only
// on its row and column.
template <class V, int N, class E>
inline void multiply(const E* a, int64_t a_row, int64_t a_step, const E* b, int64_t b_step, int64_t length, float* out,
                     int64_t out_row, bool add) {
    constexpr int lanes = sizeof(V) / sizeof(float);
    // All loops over the tile are unrolled: otherwise the sums would be in memory before and after the main loop.
    V sums[R][N];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) sums[r][v] = V{};
    for (int64_t l = 0; l < length; ++l, a += a_step, b += b_step) {
        V column[N];
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) column[v] = load<V>(b + v * lanes);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const E x = a[r * a_row];
#pragma GCC unroll 2
            for (int v = 0; v < N; ++v) add_product(sums[r][v], x, column[v]);
        }
    }
    if (add) {
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < N; ++v) sums[r][v] += load<V>(out + r * out_row + v * lanes);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) store(out + r * out_row + v * lanes, sums[r][v]);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
