// Philox4x32-10 (Salmon et al., SC 2011), W counters at a time.
#pragma once

#include "simd.h"

namespace neuroae {
namespace NEUROAE_ISA {

struct PhiloxKey {
    uint32_t low, high;

    explicit PhiloxKey(int64_t seed)
        : low(static_cast<uint32_t>(seed)), high(static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32)) {}
};

struct PhiloxBlock {
    VU word[4];
};

inline PhiloxBlock philox(PhiloxBlock counter, PhiloxKey key) {
    for (int round = 0; round < 10; ++round) {
        VU high0, low0, high2, low2;
        multiply_wide(counter.word[0], 0xD2511F53u, high0, low0);
        multiply_wide(counter.word[2], 0xCD9E8D57u, high2, low2);
        counter = {{high2 ^ counter.word[1] ^ key.low, low2, high0 ^ counter.word[3] ^ key.high, low0}};
        key.low += 0x9E3779B9u;
        key.high += 0xBB67AE85u;
    }
    return counter;
}

// The words that decide over W atoms of one patch: counter (atom / 4, patch, realization, image), word atom % 4.
inline VU draw_words(VU atom, uint32_t patch, uint32_t realization, uint32_t image, PhiloxKey key) {
    PhiloxBlock block = philox({{atom >> 2, VU{} + patch, VU{} + realization, VU{} + image}}, key);
    VU which = atom & 3, word = VU{};
    for (uint32_t i = 0; i < 4; ++i) word |= block.word[i] & (VU)(which == i);
    return word;
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
