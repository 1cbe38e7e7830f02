// Selection, draw, and the fused encode.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "abi.h"
#include "memory.h"
#include "philox.h"
#include "projection.h"
#include "threads.h"
#include "top_t.h"

namespace neuroae {
namespace NEUROAE_ISA {

// Returns whether all pixels are in range; NaN is not.
inline bool in_range(const Images& images, int threads) {
    const int64_t total = images.count * images.channels * images.height * images.width;
    const int64_t step = 1 << 16, tasks = (total + step - 1) / step;
    std::vector<char> good(tasks, 1);
    parallel_for(tasks, threads, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
            const int64_t stop = task + 1 == tasks ? total : (task + 1) * step;
            VI fine = ~VI{};
            int64_t i = task * step;
            for (; i + W <= stop; i += W) {
                VF x = load<VF>(images.pixels + i);
                fine &= (x >= images.low) & (x <= images.high);
            }
            bool all = lane_bits(fine) == (1u << W) - 1;
            for (; i < stop; ++i) all &= images.pixels[i] >= images.low && images.pixels[i] <= images.high;
            good[task] = all;
        }
    });
    for (char g : good)
        if (!g) return false;
    return true;
}

// One patch's selection, with room for what the vector code writes past its end.
struct PatchSelection {
    explicit PatchSelection(int64_t top_t) : atom(top_t + W), projection(top_t + W) {}
    std::vector<int32_t> atom;
    std::vector<float> projection;
};

// Calls take(patch number in the batch, selection) for all patches.
template <class Take>
int32_t for_each_selection(const Images& images, const Dictionary& dictionary, int64_t patches_h, int64_t patches_w,
                           int64_t top_t, int threads, Take&& take) {
    if (!in_range(images, threads)) return kBadImage;
    const PackedAtoms atoms(dictionary);
    const int64_t patches = patches_h * patches_w, total = images.count * patches;
    parallel_for((total + R - 1) / R, threads, [&](int64_t begin, int64_t end) {
        std::vector<float> tile(R * atoms.length, 0.0f), projections(R * atoms.padded());
        PatchSelection selection(top_t);
        CutFinder finder;
        for (int64_t first = begin * R; first < end * R && first < total; first += R) {
            const int64_t used = total - first < R ? total - first : R;
            for (int64_t r = 0; r < used; ++r) {
                const int64_t patch = (first + r) % patches;
                copy_patch(images, dictionary, (first + r) / patches, patch / patches_w, patch % patches_w,
                           tile.data() + r * atoms.length);
            }
            project_tile(tile.data(), atoms, projections.data());
            for (int64_t r = 0; r < used; ++r) {
                const float* row = projections.data() + r * atoms.padded();
                const Cut cut = finder.find(row, atoms.padded(), dictionary.count, top_t);
                write_top(row, atoms.padded(), cut, top_t, selection.projection.data(), selection.atom.data());
                take(first + r, selection);
            }
        }
    });
    return kOk;
}

inline int32_t select(const Images& images, const Dictionary& dictionary, const Selection& out, int threads) {
    const int64_t slots = out.images * out.patches_h * out.patches_w * out.top_t;
    expect_writes(out.atom, slots * sizeof(int16_t));
    expect_writes(out.projection, slots * sizeof(float));
    return for_each_selection(images, dictionary, out.patches_h, out.patches_w, out.top_t, threads,
                              [&](int64_t patch, const PatchSelection& selection) {
                                  int16_t* atom = out.atom + patch * out.top_t;
                                  for (int64_t t = 0; t < out.top_t; ++t)
                                      atom[t] = static_cast<int16_t>(selection.atom[t]);
                                  std::memcpy(out.projection + patch * out.top_t, selection.projection.data(),
                                              out.top_t * sizeof(float));
                              });
}

inline void expect_code(const Code& out) {
    const int64_t slots = out.rows * out.patches_h * out.patches_w * out.top_t;
    expect_writes(out.index, slots * sizeof(int16_t));
    expect_writes(out.value, slots * sizeof(float));
    expect_writes(out.projection, slots * sizeof(float));
}

// Activation and quantization of one survivor (eq. 3).
inline float activate(float a, float norm, float dead_zone, const Draws& draws) {
    if (!draws.is_signed) a = std::fabs(a);
    if (!draws.quantize) return a;
    // The same comparison as in the reference: NaN is not above the dead zone.
    if (!(std::fabs(a) >= dead_zone) || a == 0.0f) return 0.0f;
    return a > 0.0f ? norm : -norm;
}

// Where a draw is: its patch in the code, and three words of its counter.
struct Place {
    int64_t slot;  // row * patches + patch
    uint32_t patch, realization, image;
};

// Loads LANES atoms, widened to the lanes of Philox.
template <class T>
inline VL load_atoms(const T* atom) {
    typedef T Narrow __attribute__((vector_size(LANES * sizeof(T))));
    return __builtin_convertvector(load<Narrow>(atom), VL);
}

// Draws the code of one patch. Slots without a survivor are not written. `atom` is readable up to a multiple of LANES.
template <class T>
void draw_patch(const T* atom, const float* projection, const Dictionary& dictionary, const Draws& draws,
                const PhiloxKey& key, const Place& place, const Code& out) {
    const int64_t top_t = out.top_t;
    int16_t* index = out.index + place.slot * top_t;
    float* value = out.value + place.slot * top_t;
    float* survivor = out.projection + place.slot * top_t;
    int32_t count = 0;
    // Dropout is decided for 64 atoms before any is read: branches on single atoms would delay the other words.
    for (int64_t group = 0; group < top_t; group += 64) {
        const int64_t end = top_t - group < 64 ? top_t - group : 64;
        uint64_t keep = 0;
        for (int64_t t = 0; t < end; t += LANES)
            keep |= uint64_t{surviving_atoms(load_atoms(atom + group + t), place.patch, place.realization,
                                             place.image, key, draws.drop_below)} << t;
        if (end < 64) keep &= (uint64_t{1} << end) - 1;
        for (; keep; keep &= keep - 1) {
            const int64_t source = group + __builtin_ctzll(keep);
            const int64_t l = atom[source];
            const float a = projection[source];
            index[count] = static_cast<int16_t>(l);
            survivor[count] = a;
            value[count++] = activate(a, dictionary.norms[l], dictionary.dead_zone[l], draws);
        }
    }
    out.count[place.slot] = count;
}

inline int32_t draw(const Selection& selection, const Dictionary& dictionary, const Draws& draws, const Code& out,
                    int threads) {
    const int64_t patches = out.patches_h * out.patches_w, top_t = out.top_t;
    const PhiloxKey key(draws.seed);
    expect_code(out);
    parallel_for(out.rows * patches, threads, [&](int64_t begin, int64_t end) {
        std::vector<int16_t> atom(top_t + LANES);
        for (int64_t slot = begin; slot < end; ++slot) {
            const int64_t row = slot / patches, patch = slot % patches, image = row % selection.images;
            const int64_t source = (image * patches + patch) * top_t;
            std::memcpy(atom.data(), selection.atom + source, top_t * sizeof(int16_t));
            const Place place{slot, static_cast<uint32_t>(patch),
                              static_cast<uint32_t>(draws.start + row / selection.images),
                              static_cast<uint32_t>(draws.image_ids[image])};
            draw_patch(atom.data(), selection.projection + source, dictionary, draws, key, place, out);
        }
    });
    return kOk;
}

inline int32_t encode(const Images& images, const Dictionary& dictionary, const Draws& draws, const Code& out,
                      int threads) {
    const int64_t patches = out.patches_h * out.patches_w;
    const PhiloxKey key(draws.seed);
    expect_code(out);
    return for_each_selection(
        images, dictionary, out.patches_h, out.patches_w, out.top_t, threads,
        [&](int64_t slot, const PatchSelection& selection) {
            const Place place{slot, static_cast<uint32_t>(slot % patches), static_cast<uint32_t>(draws.start),
                              static_cast<uint32_t>(draws.image_ids[slot / patches])};
            draw_patch(selection.atom.data(), selection.projection.data(), dictionary, draws, key, place, out);
        });
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
