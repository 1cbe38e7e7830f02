// The gradient through the top T: from the gradient to all entries of the dense code to the gradient to the image
// (membership_gradient of kernels/reference.py).
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "abi.h"
#include "encode.h"
#include "encode_backward.h"
#include "panels.h"

namespace neuroae {
namespace NEUROAE_ISA {

// exp(x) for x <= 0, within 2 units in the last place; 0 below -87, where results would be denormal.
inline VF exp_of_negative(VF x) {
    const VF lowest = splat(-87.0f);
    x = (VF)(((VI)x & ~(VI)(x < lowest)) | ((VI)lowest & (VI)(x < lowest)));
    // x = n log(2) + r. Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const VF magic = splat(12582912.0f);
    const VF shifted = x * splat(1.44269504f) + magic;
    const VF n = shifted - magic;
    VF r = x - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    VF p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * r * r + r + splat(1.0f);
    const VI exponent = (((VI)shifted - (VI)magic) + 127) << 23;
    const VF result = p * (VF)exponent;
    return (VF)((VI)result & ~(VI)(x <= lowest));
}

inline VF magnitude(VF x) { return (VF)((VI)x & 0x7fffffff); }

// v times the sign of a, 0 where a is 0. NaN stays NaN.
inline VF with_sign_of(VF v, VF a) {
    const VI nonzero = (VI)(a != VF{});
    return (VF)((((VI)v ^ ((VI)a & INT32_MIN)) & nonzero) | ((VI)(v * VF{}) & ~nonzero));
}

// s(u) s(-u), with s the logistic function.
inline VF closeness_at(VF u) {
    const VF e = exp_of_negative(-magnitude(u)), sum = e + splat(1.0f);
    return e / (sum * sum);
}

inline VI lesser(VI a, VI b) {
    const VI less = a < b;
    return (a & less) | (b & ~less);
}

inline VI greater(VI a, VI b) {
    const VI less = a < b;
    return (b & less) | (a & ~less);
}

// Halfway between the T-th magnitude of a row and the next one.
inline float cut_position(const float* row, int64_t padded, Cut cut) {
    const VI most = VI{} + INT32_MAX;
    VI above = most, below = {}, tied = {};  // bits of the least magnitude above, of the largest below
    for (int64_t i = 0; i < padded; i += W) {
        const VI bits = magnitude_bits(row + i), chosen = bits > cut.bound, at = bits == cut.bound;
        above = lesser(above, (bits & chosen) | (most & ~chosen));
        below = greater(below, bits & ~chosen & (cut.ties > 0 ? ~at : ~VI{}));
        tied -= at;
    }
    int32_t last = INT32_MAX, next = 0;
    for (int lane = 0; lane < W; ++lane) {
        last = std::min(last, above[lane]);
        next = std::max(next, below[lane]);
    }
    if (cut.ties > 0) {
        last = cut.bound;
        if (sum(tied) > cut.ties) next = cut.bound;
    }
    float ends[2];
    std::memcpy(ends, &last, 4);
    std::memcpy(ends + 1, &next, 4);
    return 0.5f * (ends[0] + ends[1]);
}

// Norms and dead zones, with zeros to fill whole vectors.
struct Levels {
    Levels(const Dictionary& dictionary, int64_t padded) : norms(padded, 0.0f), dead_zone(padded, 0.0f) {
        std::copy(dictionary.norms, dictionary.norms + dictionary.count, norms.begin());
        std::copy(dictionary.dead_zone, dictionary.dead_zone + dictionary.count, dead_zone.begin());
    }
    std::vector<float> norms, dead_zone;
};

// Replaces a row of projections, zeros from `count` on, with the gradient to them.
inline void membership_gradient(float* row, const float* grad_code, int64_t padded, int64_t count,
                                const Levels& levels, const Membership& membership, CutFinder& finder, float* close,
                                float* share) {
    const bool selects_all = membership.top_t == count;
    float cut = 0.0f;
    if (!selects_all) cut = cut_position(row, padded, finder.find(row, padded, count, membership.top_t));
    const VF scale = splat(1.0f / membership.width);
    VF close_sum = {}, share_sum = {};
    for (int64_t i = 0; i < padded; i += W) {
        const VF a = load<VF>(row + i), m = magnitude(a), dead = load<VF>(levels.dead_zone.data() + i);
        VF k = closeness_at((m - (selects_all ? dead : splat(cut))) * scale);
        VI part = ~VI{};
        if (membership.quantize && !selects_all) part = (VI)(m >= dead);
        if (i + W > count)
            for (int lane = 0; lane < W; ++lane)
                if (i + lane >= count) part[lane] = 0;
        k = (VF)((VI)k & part);
        const VF g = load_lanes(grad_code + i, std::min<int64_t>(W, std::max<int64_t>(count - i, 0)));
        VF v = k * (membership.quantize ? load<VF>(levels.norms.data() + i) : m) * g;
        if (membership.is_signed) v = with_sign_of(v, a);
        close_sum += k;
        share_sum += v;
        store(close + i, k);
        store(share + i, v);
    }
    const float total = sum(close_sum), moved = sum(share_sum);
    const VF back = splat(selects_all || !(total > 0.0f) ? 0.0f : moved / total);
    for (int64_t i = 0; i < padded; i += W) {
        const VF a = load<VF>(row + i);
        const VF v = (load<VF>(share + i) - load<VF>(close + i) * back) * scale;
        store(row + i, with_sign_of(v, a));
    }
}

// The atoms as rows, with zeros to fill whole vectors: the factor of the gradients to the projections.
struct AtomRows {
    explicit AtomRows(const Dictionary& dictionary)
        : length(dictionary.channels * dictionary.patch * dictionary.patch),
          panels(length),
          rows(dictionary.count * panels.row(), 0.0f) {
        for (int64_t atom = 0; atom < dictionary.count; ++atom)
            std::copy(dictionary.atoms + atom * length, dictionary.atoms + (atom + 1) * length,
                      rows.begin() + atom * panels.row());
    }
    const int64_t length;  // K = C n n
    const Panels panels;
    std::vector<float> rows;
};

// grads: (R, padded), one for each atom. pixels: (R, panels.row()). Sums over the atoms are sums of chains.
inline void back_project_tile(const float* grads, int64_t padded, int64_t count, const AtomRows& atoms,
                              float* pixels) {
    const int64_t row = atoms.panels.row();
    for (const auto& panel : atoms.panels.list)
        for (int64_t first = 0; first < count; first += kChain)
            multiply_panel(grads + first, padded, 1, atoms.rows.data() + first * row + panel.first, row,
                           std::min(kChain, count - first), pixels + panel.first, row, first > 0, panel.width);
}

// Adds up the gradients of an image's patches, in their order; pixels that no patch covers get 0.
inline void fold_image(const float* patches, int64_t row, const Images& images, const Dictionary& dictionary,
                       int64_t patches_h, int64_t patches_w, float* out) {
    std::memset(out, 0, images.channels * images.height * images.width * sizeof(float));
    for (int64_t p = 0; p < patches_h * patches_w; ++p)
        add_patch(patches + p * row, dictionary, p / patches_w, p % patches_w, images.height, images.width, out);
}

inline int32_t selection_backward(const Images& images, const Dictionary& dictionary, const Membership& membership,
                                  float* out, int threads) {
    if (!in_range(images, threads)) return kBadImage;
    const PackedAtoms atoms(dictionary);
    const AtomRows atom_rows(dictionary);
    const Levels levels(dictionary, atoms.padded());
    const int64_t patches_h = membership.patches_h, patches_w = membership.patches_w;
    const int64_t patches = patches_h * patches_w, total = images.count * patches;
    const int64_t padded = atoms.padded(), row = atom_rows.panels.row();
    const int64_t tiles = (total + R - 1) / R;
    Scratch<float> pixels(tiles * R * row);
    parallel_for(tiles, threads, [&](int64_t begin, int64_t end) {
        std::vector<float> tile(R * atoms.length, 0.0f), projections(R * padded), close(padded), share(padded);
        CutFinder finder;
        for (int64_t first = begin * R; first < end * R && first < total; first += R) {
            const int64_t used = std::min<int64_t>(R, total - first);
            for (int64_t r = 0; r < used; ++r) {
                const int64_t patch = (first + r) % patches;
                copy_patch(images, dictionary, (first + r) / patches, patch / patches_w, patch % patches_w,
                           tile.data() + r * atoms.length);
            }
            project_tile(tile.data(), atoms, projections.data());
            for (int64_t r = 0; r < used; ++r)
                membership_gradient(projections.data() + r * padded,
                                    membership.grad_code + (first + r) * dictionary.count, padded, dictionary.count,
                                    levels, membership, finder, close.data(), share.data());
            back_project_tile(projections.data(), padded, dictionary.count, atom_rows, pixels.data() + first * row);
        }
    });
    const int64_t image_size = images.channels * images.height * images.width;
    parallel_for(images.count, threads, [&](int64_t begin, int64_t end) {
        for (int64_t image = begin; image < end; ++image)
            fold_image(pixels.data() + image * patches * row, row, images, dictionary, patches_h, patches_w,
                       out + image * image_size);
    });
    return kOk;
}

}  // namespace NEUROAE_ISA
}  // namespace neuroae
