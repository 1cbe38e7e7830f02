"""The first half of ``selection_backward``: each patch's cut, and the share that the moving cut takes.

For a dictionary that does not fit in registers, the cut comes from a buffer of projections, as in ``select.py``.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from . import search, tiles
from .launch import Launch
from .search import as_bits, as_float
from .select import buffer_launches, load_projections, search_constants, search_row
from .steps import magnitudes, patch_origins, project, project_all, row_reach

# Tiles of a program that finds shares alone.
SHARE_PATCHES = 32
SHARE_ATOMS = 64
LOG2_E = tl.constexpr(1.4426950408889634)
SIGN_BIT = tl.constexpr(-(2**31))


@triton.jit
def closeness(a, cut, edge, scale):
    """Returns s(u) s(-u) for u = (|a| - cut) * scale, s the logistic function; 0 for magnitudes below ``edge``.

    The product is the same for u and -u, so it is computed from e = exp(-|u|), which does not overflow. The reciprocal
    of (1 + e)^2 is the square of a root, since a GPU's division takes more instructions.
    """
    magnitude = tl.abs(a)
    e = tl.exp2(-tl.abs(magnitude - cut) * (scale * LOG2_E))
    root = tl.rsqrt((1.0 + e) * (1.0 + e))
    return tl.where(magnitude >= edge, e * root * root, 0.0)


@triton.jit
def with_sign(x, a):
    """Returns x, with the other sign where a is negative. A GPU converts an integer for a factor of 1 or -1."""
    return as_float(as_bits(x) ^ (as_bits(a) & SIGN_BIT))


@triton.jit
def membership_derivative(a, norm, grad, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr):
    """Returns the derivative of the loss to each atom's membership: ``grad`` times the value that a member has.

    The sign of a is that of a factor instead of a condition, so that NaN stays NaN where a projection is 0.
    """
    value = norm if QUANTIZE else tl.abs(a)
    if SIGNED:
        value = tl.where(a == 0, 0.0, with_sign(value, a))
    return value * grad


@triton.jit
def load_levels(norms, dead_zone, atom, exists, QUANTIZE: tl.constexpr):
    """Loads norms, and the edges of the dead zones, below which no magnitude counts: infinity for no atom.

    Without quantization norms are 0 and not used, and edges are 0.
    """
    if QUANTIZE:
        norm = tl.load(norms + atom, mask=exists, other=0.0)
        return norm, tl.load(dead_zone + atom, mask=exists, other=float("inf"))
    else:
        return tl.zeros(atom.shape, tl.float32), tl.where(exists, 0.0, float("inf"))


@triton.jit
def least_reaching(bits, low):
    """Returns the least magnitude of each row that reaches ``low``, (rows, 1)."""
    return tl.min(tl.where(bits >= low, bits, 0x7FFFFFFF), axis=1, keep_dims=True)


@triton.jit
def greatest_below(bits, low):
    """Returns the greatest magnitude of each row below ``low``, (rows, 1)."""
    return tl.max(tl.where(bits < low, bits, 0), axis=1, keep_dims=True)


@triton.jit
def halfway(least, below, reached, TOP_T: tl.constexpr):
    """Returns the cut between the T-th magnitude, ``least``, and the next one.

    The next one equals ``least`` if more than T magnitudes reach it, else it is ``below``.
    """
    following = tl.where(reached > TOP_T, least, below)
    return 0.5 * least.to(tl.float32, bitcast=True) + 0.5 * following.to(tl.float32, bitcast=True)


@triton.jit
def moving_share(closeness_sum, weighted_sum):
    """Returns the share that the moving cut takes from each atom's derivative; 0 where no atom takes part."""
    return weighted_sum / tl.where(closeness_sum > 0, closeness_sum, 1.0)


@triton.jit
def share_terms(
    grad_row,
    a,
    atom,
    live,
    cut,
    norms,
    dead_zone,
    scale,
    ATOMS: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Returns each atom's terms of the two sums of ``moving_share``."""
    exists = atom < ATOMS
    norm, edge = load_levels(norms, dead_zone, atom, exists, QUANTIZE)
    grad = tl.load(grad_row + atom, mask=live & exists, other=0.0)
    close = closeness(a, cut, edge, scale)
    return close, close * membership_derivative(a, norm, grad, QUANTIZE, SIGNED)


@triton.jit(do_not_specialize=["scale", "height", "width", "patches_w", "patches", "total"])
def cut_kernel(
    grad_code,
    images,
    atoms,
    norms,
    dead_zone,
    cuts,
    shares,
    scale: tl.float32,
    height: tl.int32,
    width: tl.int32,
    patches_w: tl.int32,
    patches: tl.int32,
    total: tl.int32,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    TOP_T: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    FIRST: tl.constexpr,
    SHARES: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Finds the cut and, with SHARES, the moving share of each patch, (total,) each."""
    first = tl.program_id(0) * PATCH_TILE
    patch = first + tl.arange(0, PATCH_TILE)[:, None]
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project_all(
        images, atoms, origin, patch < total, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE
    )
    atom = search.lane_atoms(ATOM_TILE)
    place = search.lane_patches(PATCH_TILE)
    bits, lane_number = search.find_cut(a, atom, ATOMS, TOP_T, FIRST)
    cut = search.middle_cut(a, lane_number, bits, TOP_T)

    live = first + place < total
    tl.store(cuts + first + place, cut, mask=live)
    if SHARES:
        grad_code += first.to(tl.int64) * ATOMS
        close, weighted = share_sums(
            grad_code, a, atom, place, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        share = moving_share(tl.sum(close, axis=3, keep_dims=True), tl.sum(weighted, axis=3, keep_dims=True))
        tl.store(shares + first + place, share, mask=live)


@triton.jit
def share_sums(
    grad_code,
    a,
    atom,
    place,
    live,
    cut,
    norms,
    dead_zone,
    scale,
    ATOMS: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Returns the sums of ``moving_share`` over the atoms of each lane, from four at once: registers hold no more."""
    if a.shape[1] > 4:
        a_0, a_1 = search.atom_halves(a)
        atom_0, atom_1 = search.atom_halves(atom)
        close_0, weighted_0 = share_sums(
            grad_code, a_0, atom_0, place, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        close_1, weighted_1 = share_sums(
            grad_code, a_1, atom_1, place, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        return close_0 + close_1, weighted_0 + weighted_1
    else:
        close, weighted = share_terms(
            grad_code + place * ATOMS, a, atom, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        return tl.sum(close, axis=1, keep_dims=True), tl.sum(weighted, axis=1, keep_dims=True)


@triton.jit(do_not_specialize=["scale", "height", "width", "patches_w", "patches", "total"])
def share_kernel(
    grad_code,
    images,
    atoms,
    norms,
    dead_zone,
    cuts,
    shares,
    scale: tl.float32,
    height: tl.int32,
    width: tl.int32,
    patches_w: tl.int32,
    patches: tl.int32,
    total: tl.int32,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Finds the moving share of each patch from its cut. It projects again, onto some atoms at a time."""
    patch = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    grad_row = grad_code + patch.to(tl.int64) * ATOMS
    cut = tl.load(cuts + patch, mask=live, other=0.0)
    close = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    weighted = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        atom = first_atom + tl.arange(0, ATOM_TILE)[None, :]
        a = project(
            images, atoms, origin, live, first_atom, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE
        )
        part, part_weighted = share_terms(
            grad_row, a, atom, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        close += part
        weighted += part_weighted
    share = moving_share(tl.sum(close, axis=1, keep_dims=True), tl.sum(weighted, axis=1, keep_dims=True))
    tl.store(shares + patch, share, mask=live)


@triton.jit(do_not_specialize=["scale", "first", "end"])
def large_cut_kernel(
    grad_code,
    buffer,
    norms,
    dead_zone,
    cuts,
    shares,
    scale: tl.float32,
    first: tl.int32,
    end: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
):
    """Finds the cut and the moving share of patches ``first`` to ``end`` - 1, whose projections are in ``buffer``."""
    place = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    patch = first + place
    live = patch < end
    row = buffer + place * ATOMS
    column = tl.arange(0, ATOM_TILE)[None, :]

    low = search_row(row, live, ATOMS, TOP_T, PATCH_TILE, ATOM_TILE)
    least = tl.full((PATCH_TILE, 1), 0x7FFFFFFF, tl.int32)
    below = tl.zeros((PATCH_TILE, 1), tl.int32)
    reached = tl.zeros((PATCH_TILE, 1), tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        a, exists = load_projections(row, first_atom + column, live, ATOMS)
        bits = magnitudes(a, exists)
        least = tl.minimum(least, least_reaching(bits, low))
        below = tl.maximum(below, greatest_below(bits, low))
        reached += row_reach(bits, low)
    cut = halfway(least, below, reached, TOP_T)

    grad_row = grad_code + patch.to(tl.int64) * ATOMS
    close = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    weighted = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        atom = first_atom + column
        a, _ = load_projections(row, atom, live, ATOMS)
        part, part_weighted = share_terms(
            grad_row, a, atom, live, cut, norms, dead_zone, scale, ATOMS, QUANTIZE, SIGNED
        )
        close += part
        weighted += part_weighted
    share = moving_share(tl.sum(close, axis=1, keep_dims=True), tl.sum(weighted, axis=1, keep_dims=True))
    tl.store(cuts + patch, cut, mask=live)
    tl.store(shares + patch, share, mask=live)


def cut_launches(
    arguments: dict[str, Tensor | float],
    inputs: dict[str, Tensor],
    sizes: dict[str, int],
    constants: dict[str, int],
) -> Iterator[Launch]:
    """Yields the launches that find the cuts.

    Args:
        arguments: The arguments of ``cut_kernel`` without ``inputs`` and ``sizes``.
        inputs: Images and atoms, by parameter.
        sizes: The result of ``patch_arguments``.
        constants: ``cut_kernel``'s compile-time parameters.
    """
    if not tiles.fits_registers(constants["ATOMS"]):
        names = ("TOP_T", "QUANTIZE", "SIGNED")
        yield from buffer_launches(large_cut_kernel, arguments, names, inputs, sizes, constants)
        return
    in_one_kernel = tiles.fits_fused(constants["ATOMS"])
    searching = constants | search_constants(constants["ATOMS"], constants["TOP_T"]) | {"SHARES": in_one_kernel}
    patch_tile = searching["PATCH_TILE"]
    programs = tiles.num_tiles(sizes["total"], patch_tile)
    yield Launch(cut_kernel, programs, arguments | inputs | sizes, searching, patch_tile // tiles.WARP_PATCHES)
    if not in_one_kernel:
        shared = ("ATOMS", "CHANNELS", "PATCH", "STRIDE", "QUANTIZE", "SIGNED")
        yield Launch(
            share_kernel,
            tiles.num_tiles(sizes["total"], SHARE_PATCHES),
            arguments | inputs | sizes,
            {name: constants[name] for name in shared}
            | {"PATCH_TILE": SHARE_PATCHES, "ATOM_TILE": SHARE_ATOMS, "PIXEL_SLICE": tiles.LEAST_TERMS},
            tiles.warps(SHARE_PATCHES * SHARE_ATOMS, 16),
        )
