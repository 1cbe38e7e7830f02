// The transforms of Winograd's minimal filtering F(4 x 4, 3 x 3): 4 x 4 outputs of a 3 x 3 filter from 6 x 6 inputs in
// 36 multiplications instead of 144 (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016).
//
// The interpolation points are 0, a, -a, b, -b and infinity, with a^2 = 1/2 and b^2 = 2; the textbook's 1 and 2 lose
// two more bits. With inputs d, filter g and the matrices A, B, G of these points, the outputs are
// A^T [(G g G^T) * (B^T d B)] A, where * is elementwise.
#pragma once

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

constexpr int kOutputs = 4, kInputs = 6, kTaps = 3, kPoints = kInputs * kInputs;
constexpr float kA = 0.70710678f, kB = 1.41421356f;

// Each of these multiplies one matrix with a vector; `apply` uses it for columns, then for rows.
struct InputTransform {  // B^T
    static constexpr int from = kInputs, to = kInputs;
    static void run(const VF d[from], VF v[to]) {
        const VF even_a = d[4] - 2.0f * d[2], odd_a = kA * (d[3] - 2.0f * d[1]);
        const VF even_b = d[4] - 0.5f * d[2], odd_b = kB * (d[3] - 0.5f * d[1]);
        v[0] = d[0] - 2.5f * d[2] + d[4];
        v[1] = even_a + odd_a;
        v[2] = even_a - odd_a;
        v[3] = even_b + odd_b;
        v[4] = even_b - odd_b;
        v[5] = d[1] - 2.5f * d[3] + d[5];
    }
};

struct FilterTransform {  // G
    static constexpr int from = kTaps, to = kInputs;
    static void run(const VF g[from], VF u[to]) {
        const VF even_a = (g[0] + 0.5f * g[2]) * (-2.0f / 3), odd_a = g[1] * (-2.0f / 3 * kA);
        const VF even_b = (g[0] + 2.0f * g[2]) * (1.0f / 6), odd_b = g[1] * (1.0f / 6 * kB);
        u[0] = g[0];
        u[1] = even_a + odd_a;
        u[2] = even_a - odd_a;
        u[3] = even_b + odd_b;
        u[4] = even_b - odd_b;
        u[5] = g[2];
    }
};

struct OutputTransform {  // A^T
    static constexpr int from = kInputs, to = kOutputs;
    static void run(const VF m[from], VF y[to]) {
        const VF even_a = m[1] + m[2], odd_a = kA * (m[1] - m[2]);
        const VF even_b = m[3] + m[4], odd_b = kB * (m[3] - m[4]);
        y[0] = m[0] + even_a + even_b;
        y[1] = odd_a + odd_b;
        y[2] = 0.5f * even_a + 2.0f * even_b;
        y[3] = 0.5f * odd_a + 2.0f * odd_b + m[5];
    }
};

struct OutputGradient {  // A
    static constexpr int from = kOutputs, to = kInputs;
    static void run(const VF y[from], VF m[to]) {
        const VF even_a = y[0] + 0.5f * y[2], odd_a = kA * (y[1] + 0.5f * y[3]);
        const VF even_b = y[0] + 2.0f * y[2], odd_b = kB * (y[1] + 2.0f * y[3]);
        m[0] = y[0];
        m[1] = even_a + odd_a;
        m[2] = even_a - odd_a;
        m[3] = even_b + odd_b;
        m[4] = even_b - odd_b;
        m[5] = y[3];
    }
};

struct FilterGradient {  // G^T
    static constexpr int from = kInputs, to = kTaps;
    static void run(const VF u[from], VF g[to]) {
        const VF even_a = (u[1] + u[2]) * (-2.0f / 3), odd_a = (u[1] - u[2]) * (-2.0f / 3 * kA);
        const VF even_b = (u[3] + u[4]) * (1.0f / 6), odd_b = (u[3] - u[4]) * (1.0f / 6 * kB);
        g[0] = u[0] + even_a + even_b;
        g[1] = odd_a + odd_b;
        g[2] = 0.5f * even_a + 2.0f * even_b + u[5];
    }
};

// M x M^T for the matrix M of a transform: read(i, j) returns x, write(i, j, v) receives the result. The loops are
// unrolled: otherwise rows and columns would be gathered through memory.
template <class Transform, class Read, class Write>
inline void apply(Read&& read, Write&& write) {
    VF columns[Transform::from][Transform::to];
#pragma GCC unroll 6
    for (int j = 0; j < Transform::from; ++j) {
        VF column[Transform::from];
#pragma GCC unroll 6
        for (int i = 0; i < Transform::from; ++i) column[i] = read(i, j);
        Transform::run(column, columns[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < Transform::to; ++i) {
        VF row[Transform::from], result[Transform::to];
#pragma GCC unroll 6
        for (int j = 0; j < Transform::from; ++j) row[j] = columns[j][i];
        Transform::run(row, result);
#pragma GCC unroll 6
        for (int j = 0; j < Transform::to; ++j) write(i, j, result[j]);
    }
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
