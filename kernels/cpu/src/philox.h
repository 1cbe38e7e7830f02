// Philox4x32-10 (Salmon et al., SC 2011), one counter in each 64-bit lane.
//
// A word is in the low half of its lane. Products fill the lane, and the next product ignores the high half, so no
// masks or shuffles are needed between rounds.
#pragma once

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

constexpr int LANES = W / 2;
typedef uint64_t VL __attribute__((vector_size(W * 4)));

inline VL splat(uint64_t x) { return VL{} + x; }

// Multiplies the low halves of the lanes by m.
inline VL multiply_low(VL x, uint32_t m) {
#if defined(__AVX512F__)
    return (VL)_mm512_mul_epu32((__m512i)x, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
    return (VL)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(m));
#else
    return (x & 0xffffffffu) * m;
#endif
}

// The keys of all rounds in all lanes, for many counters.
struct PhiloxKey {
    VL low[10], high[10];

    explicit PhiloxKey(int64_t seed) {
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32);
        for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            low[round] = splat(uint64_t{k0});
            high[round] = splat(uint64_t{k1});
        }
    }
};

struct PhiloxBlock {
    VL word[4];
};

// The high halves of the result's lanes hold no words.
inline PhiloxBlock philox(PhiloxBlock counter, const PhiloxKey& key) {
    for (int round = 0; round < 10; ++round) {
        const VL product0 = multiply_low(counter.word[0], 0xD2511F53u);
        const VL product2 = multiply_low(counter.word[2], 0xCD9E8D57u);
        counter = {{(product2 >> 32) ^ counter.word[1] ^ key.low[round], product2,
                    (product0 >> 32) ^ counter.word[3] ^ key.high[round], product0}};
    }
    return counter;
}

// Returns which of LANES atoms of one patch survive dropout, a bit each: counter (atom / 4, patch, realization, image),
// word atom % 4, which survives unless it is below `drop_below`.
inline uint32_t surviving_atoms(VL atom, uint32_t patch, uint32_t realization, uint32_t image,
                                const PhiloxKey& key, uint64_t drop_below) {
    const PhiloxBlock block =
        philox({{atom >> 2, splat(uint64_t{patch}), splat(uint64_t{realization}), splat(uint64_t{image})}}, key);
    const VL which = atom & 3;
    VL word = VL{};
    for (uint64_t i = 0; i < 4; ++i) word |= block.word[i] & (VL)(which == i);
    return lane_bits64((word & 0xffffffffu) >= drop_below);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
