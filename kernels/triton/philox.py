"""Philox4x32-10 (Salmon et al., SC 2011) and dropout, for kernels. ``kernels/philox.py`` is the same in PyTorch."""

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Returns four uint32 words for each counter (four uint32 tensors of one shape) and a key (two uint32 scalars)."""
    for _ in tl.static_range(10):
        low_product = c0.to(tl.uint64) * 0xD2511F53
        high_product = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (high_product >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (low_product >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = high_product.to(tl.uint32)
        c3 = low_product.to(tl.uint32)
        # The keys wrap around. Under TRITON_DEBUG=1 that is an error unless it is declared.
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def draw_words(group, patch, realization, image_id, seed):
    """Returns the words of atoms 4 * group .. 4 * group + 3. ``seed`` is an address, the other arguments broadcast."""
    group, patch = tl.broadcast(group.to(tl.uint32), patch.to(tl.uint32))
    image_id, patch = tl.broadcast(image_id.to(tl.uint32), patch)
    realization = tl.zeros_like(group) + realization
    key = tl.load(seed).to(tl.uint64)
    return philox4x32(group, patch, realization, image_id, key.to(tl.uint32), (key >> 32).to(tl.uint32))


@triton.jit
def lane_survivors(patch, realization, image_id, seed, drop_threshold, ATOM_TILE: tl.constexpr):
    """Returns 1 for the atoms that survive dropout and 0 for others, in the shape of ``search.py``, (1, W, warps, 32).

    ``patch`` and ``image_id`` are (1, 1, warps, 1). One call of Philox serves four atoms.
    """
    GROUPS: tl.constexpr = ATOM_TILE // 128
    group = tl.arange(0, GROUPS)[None, :, None, None] + tl.arange(0, 32)[None, None, None, :] * GROUPS
    w0, w1, w2, w3 = draw_words(group, patch, realization, image_id, seed)
    even = tl.join((w0 >= drop_threshold).to(tl.int32), (w2 >= drop_threshold).to(tl.int32))
    odd = tl.join((w1 >= drop_threshold).to(tl.int32), (w3 >= drop_threshold).to(tl.int32))
    words = tl.permute(tl.join(even, odd), (0, 1, 4, 5, 2, 3))
    return tl.reshape(words, (1, ATOM_TILE // 32, w0.shape[2], 32))


@triton.jit
def survives(atom, patch, realization, image_id, seed, drop_threshold):
    """Returns which of these atoms, (patches, slots), survive; ``patch`` and ``image_id`` are (patches, 1)."""
    w0, w1, w2, w3 = draw_words(atom // 4, patch, realization, image_id, seed)
    word = tl.where(atom % 4 < 2, tl.where(atom % 4 == 0, w0, w1), tl.where(atom % 4 == 2, w2, w3))
    return word >= drop_threshold
