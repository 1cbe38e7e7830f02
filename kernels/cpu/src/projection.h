// Inner products of patches with atoms.
//
// A tile of R patches is multiplied with all atoms, two vectors of atoms at a time. So a patch's projections depend on
// the patch alone.
#pragma once

#include <vector>

#include "abi.h"
#include "multiply.h"

namespace neuroae {
namespace NEUROAE_ISA {

// The atoms in blocks of 2 W, each block K x 2 W. Zeros fill the last block.
class PackedAtoms {
  public:
    explicit PackedAtoms(const Dictionary& dictionary)
        : length(dictionary.channels * dictionary.patch * dictionary.patch),
          blocks((dictionary.count + 2 * W - 1) / (2 * W)),
          packed(blocks * length * 2 * W, 0.0f) {
        for (int64_t atom = 0; atom < dictionary.count; ++atom) {
            const float* source = dictionary.atoms + atom * length;
            float* target = packed.data() + atom / (2 * W) * length * 2 * W + atom % (2 * W);
            for (int64_t k = 0; k < length; ++k) target[k * 2 * W] = source[k];
        }
    }
    const float* block(int64_t number) const { return packed.data() + number * length * 2 * W; }
    int64_t padded() const { return blocks * 2 * W; }

    const int64_t length;  // K = C n n
    const int64_t blocks;

  private:
    std::vector<float> packed;
};

inline void copy_patch(const Images& images, const Dictionary& dictionary, int64_t image, int64_t i, int64_t j,
                       float* target) {
    const int64_t n = dictionary.patch;
    for (int64_t channel = 0; channel < images.channels; ++channel) {
        const float* source = images.pixels + ((image * images.channels + channel) * images.height +
                                               i * dictionary.stride) * images.width + j * dictionary.stride;
        for (int64_t y = 0; y < n; ++y, source += images.width, target += n)
            for (int64_t x = 0; x < n; ++x) target[x] = source[x];
    }
}

// patches: (R, K). projections: (R, padded).
inline void project_tile(const float* patches, const PackedAtoms& atoms, float* projections) {
    for (int64_t number = 0; number < atoms.blocks; ++number)
        multiply<VF, 2>(patches, atoms.length, 1, atoms.block(number), 2 * W, atoms.length,
                        projections + number * 2 * W, atoms.padded(), false);
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
