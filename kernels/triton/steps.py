"""The steps of the encoder, as functions for kernels: projections, and the slots of a code.

For projections that do not fit in registers, the top T of each row is found by bisection for the threshold: each
step counts the magnitudes that reach a candidate. Non-negative floats are ordered like their bit patterns as integers,
so 31 steps are enough. A running count gives ties to the lower atoms. ``search.py`` is the fast search.
"""

import triton
import triton.language as tl

from .search import LANES, WARP_PATCHES


@triton.jit
def patch_origins(patch, height, width, patches_w, patches, CHANNELS: tl.constexpr, STRIDE: tl.constexpr):
    """Returns the offset of each patch's first pixel. ``patch`` counts through the batch; an image has ``patches``."""
    image = (patch // patches).to(tl.int64)
    position = patch % patches
    row = position // patches_w * STRIDE
    column = position % patches_w * STRIDE
    return image * CHANNELS * height * width + row * width + column


@triton.jit
def load_pixels(
    images, origin, live, first, height, width, CHANNELS: tl.constexpr, PATCH: tl.constexpr, SLICE: tl.constexpr
):
    """Loads pixels ``first`` to ``first`` + SLICE - 1 of each patch, (patches, SLICE); 0 beyond the last."""
    pixel = first + tl.arange(0, SLICE)
    channel = pixel // (PATCH * PATCH)
    row = pixel % (PATCH * PATCH) // PATCH
    offset = (channel * height + row) * width + pixel % PATCH
    mask = live
    if CHANNELS * PATCH * PATCH % SLICE != 0:
        mask = live & (pixel < CHANNELS * PATCH * PATCH)[None, :]
    return tl.load(images + origin + offset[None, :], mask=mask, other=0.0)


@triton.jit
def load_atoms(atoms, atom, first, ATOMS: tl.constexpr, PIXELS: tl.constexpr, SLICE: tl.constexpr):
    """Loads pixels ``first`` to ``first`` + SLICE - 1 of these atoms, (SLICE, atoms); 0 beyond the last."""
    pixel = first + tl.arange(0, SLICE)[None, :]
    mask = (atom < ATOMS)[:, None]
    if PIXELS % SLICE != 0:
        mask = mask & (pixel < PIXELS)
    return tl.trans(tl.load(atoms + atom.to(tl.int64)[:, None] * PIXELS + pixel, mask=mask, other=0.0))


@triton.jit
def project(
    images,
    atoms,
    origin,
    live,
    first_atom,
    height,
    width,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Returns projections onto the atoms from ``first_atom`` on, (patches, ATOM_TILE) float32; 0 beyond the last atom.

    ``origin`` and ``live`` are (patches, 1). The multiply-adds follow IEEE, in the order of the pixels, so that a
    projection depends on its patch and atom alone.
    """
    PIXELS: tl.constexpr = CHANNELS * PATCH * PATCH
    atom = first_atom + tl.arange(0, ATOM_TILE)
    projection = tl.zeros((origin.shape[0], ATOM_TILE), tl.float32)
    for first in range(0, PIXELS, PIXEL_SLICE):
        x = load_pixels(images, origin, live, first, height, width, CHANNELS, PATCH, PIXEL_SLICE)
        d = load_atoms(atoms, atom, first, ATOMS, PIXELS, PIXEL_SLICE)
        projection = tl.dot(x, d, projection, input_precision="ieee")
    return projection


@triton.jit
def project_all(
    images,
    atoms,
    origin,
    live,
    height,
    width,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Returns projections onto all atoms, float32 in the shape of ``search.py``; 0 beyond the last atom.

    Products of 128 columns put all warps side by side along the patches, and four columns of each into a lane. The
    columns of a lane are consecutive atoms over all products. Products come in groups, for which registers suffice.
    Multiply-adds are those of ``project``.
    """
    PIXELS: tl.constexpr = CHANNELS * PATCH * PATCH
    COLUMNS: tl.constexpr = 4 * LANES
    PARTS: tl.constexpr = ATOM_TILE // COLUMNS
    GROUP: tl.constexpr = min(PARTS, 4)
    ROWS: tl.constexpr = origin.shape[0]
    column = tl.arange(0, COLUMNS)
    atom = column // 4 * (4 * PARTS) + column % 4
    parts = ()
    for group in tl.static_range(0, PARTS, GROUP):
        sums = ()
        for _ in tl.static_range(GROUP):
            sums = sums + (tl.zeros((ROWS, COLUMNS), tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
        for first in range(0, PIXELS, PIXEL_SLICE):
            x = load_pixels(images, origin, live, first, height, width, CHANNELS, PATCH, PIXEL_SLICE)
            products = ()
            for part in tl.static_range(GROUP):
                d = load_atoms(atoms, atom + 4 * (group + part), first, ATOMS, PIXELS, PIXEL_SLICE)
                product = tl.dot(x, d, sums[part], input_precision="ieee")
                products = products + (product,)  # type: ignore[assignment]  # noqa: RUF005
            sums = products
        parts = parts + sums
    shape: tl.constexpr = (ROWS // WARP_PATCHES, WARP_PATCHES, LANES, 4, PARTS)
    joined = tl.permute(tl.reshape(join_all(parts, 0, 1, PARTS), shape), (1, 4, 3, 0, 2))
    return tl.reshape(joined, (WARP_PATCHES, 4 * PARTS, ROWS // WARP_PATCHES, LANES))


@triton.jit
def join_all(parts, first: tl.constexpr, step: tl.constexpr, PARTS: tl.constexpr):
    """Joins every ``step``-th part from ``first`` on in new last dimensions, whose order is that of the parts."""
    if step == PARTS:
        return parts[first]
    else:
        return tl.join(
            join_all(parts, first, 2 * step, PARTS),
            join_all(parts, first + step, 2 * step, PARTS),
        )


@triton.jit
def magnitudes(projection, valid):
    """Returns the bits of |projection|; those of infinity for NaN, and -1, below all magnitudes, where not valid."""
    bits = projection.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return tl.where(valid, tl.minimum(bits, 0x7F800000), -1)


@triton.jit
def row_count(mask):
    """Returns the number of True entries in each row, (rows, 1)."""
    return tl.sum(mask.to(tl.int32), axis=1, keep_dims=True)


@triton.jit
def row_reach(bits, middle):
    """Returns how many entries of each row reach ``middle``, (rows, 1).

    Counts signs of differences, which do not overflow: for a sum of comparisons LLVM packs bits on the stack.
    """
    return tl.sum((bits - middle) >> 31, axis=1, keep_dims=True) + bits.shape[1]


@triton.jit
def widest_interval(ROWS: tl.constexpr):
    """Returns the first interval of the search, (low, high): at least T magnitudes reach low, and fewer reach high."""
    return tl.zeros((ROWS, 1), tl.int32), tl.full((ROWS, 1), 0x7F800001, tl.int32)


@triton.jit
def midpoint(low, high):
    return low + ((high - low) >> 1)


@triton.jit
def narrow(low, high, middle, reached, TOP_T: tl.constexpr):
    """Returns the next interval if ``reached`` magnitudes reach ``middle``; its width is 1 if they are exactly T."""
    next_low = tl.where(reached >= TOP_T, middle, low)
    next_high = tl.where(reached > TOP_T, high, tl.where(reached == TOP_T, middle + 1, middle))
    return next_low, next_high


@triton.jit
def above_cut(bits, cut, places):
    """Returns the mask of entries above the threshold and of the leftmost ``places`` entries at it."""
    tied = bits == cut
    return (bits > cut) | (tied & (tl.cumsum(tied.to(tl.int32), axis=1) <= places))


@triton.jit
def activate(a, norm, dead_zone, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr):
    """Returns sign(a) * norm outside the dead zone, else 0 (eq. 3). Without SIGNED takes magnitudes first."""
    if not SIGNED:
        a = tl.abs(a)
    if QUANTIZE:
        level = tl.where(a > 0, norm, tl.where(a < 0, -norm, 0.0))
        a = tl.where(tl.abs(a) >= dead_zone, level, 0.0)
    return a


@triton.jit
def next_slots(keep, num_used):
    """Returns the slots of each row's True entries, in order, after the first ``num_used`` slots, (rows, 1)."""
    return num_used + tl.cumsum(keep.to(tl.int32), axis=1) - 1


@triton.jit
def write_survivors(
    index, value, projection, offset, keep, atom, a, norm, dead_zone, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr
):
    """Writes the coefficients where ``keep`` is True to slots; ``atom``, ``norm`` and ``dead_zone`` broadcast."""
    tl.store(index + offset, tl.broadcast_to(atom, keep.shape).to(tl.int16), mask=keep)
    tl.store(value + offset, activate(a, norm, dead_zone, QUANTIZE, SIGNED), mask=keep)
    tl.store(projection + offset, a, mask=keep)


@triton.jit
def write_unused(index, value, projection, row, num_used, live, TOP_T: tl.constexpr, SLOT_TILE: tl.constexpr):
    """Writes -1, 0 and 0 to slots from ``num_used`` on. ``row`` is the offset of a patch's first slot, (rows, 1)."""
    for first in range(0, TOP_T, SLOT_TILE):
        slot = first + tl.arange(0, SLOT_TILE)[None, :]
        unused = live & (slot >= num_used) & (slot < TOP_T)
        offset = row + slot
        zero = tl.zeros(unused.shape, tl.float32)
        tl.store(index + offset, tl.full(unused.shape, -1, tl.int16), mask=unused)
        tl.store(value + offset, zero, mask=unused)
        tl.store(projection + offset, zero, mask=unused)
