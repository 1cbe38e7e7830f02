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
def all_survivors(patch, realization, image_id, seed, drop_threshold, ATOM_TILE: tl.constexpr):
    """Returns which of atoms 0 .. ATOM_TILE - 1 survive dropout, (patches, ATOM_TILE).

    ``patch`` and ``image_id`` are (patches, 1). One call of Philox serves four atoms.
    """
    group = tl.arange(0, ATOM_TILE // 4)[None, :]
    w0, w1, w2, w3 = draw_words(group, patch, realization, image_id, seed)
    even = tl.interleave((w0 >= drop_threshold).to(tl.int8), (w2 >= drop_threshold).to(tl.int8))
    odd = tl.interleave((w1 >= drop_threshold).to(tl.int8), (w3 >= drop_threshold).to(tl.int8))
    return tl.interleave(even, odd) != 0


@triton.jit
def survives(atom, patch, realization, image_id, seed, drop_threshold):
    """Returns which of these atoms, (patches, slots), survive; ``patch`` and ``image_id`` are (patches, 1)."""
    w0, w1, w2, w3 = draw_words(atom // 4, patch, realization, image_id, seed)
    word = tl.where(atom % 4 < 2, tl.where(atom % 4 == 0, w0, w1), tl.where(atom % 4 == 2, w2, w3))
    return word >= drop_threshold
