"""Projection and top T for dictionaries whose projections of a patch do not fit in registers.

One kernel writes the projections of as many patches as a buffer of 256 MiB holds, another searches them, and so on
until the batch is done: memory does not grow with the batch, and each kernel only reads what an earlier one wrote.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import Launch
from .project import patch_origins, project
from .top_t import chosen, magnitudes, midpoint, narrow, row_count, row_reach, widest_interval
from .write import next_slots

BUFFER_NUMBERS = 2**26


@triton.jit(do_not_specialize=["height", "width", "patches_w", "patches", "first", "end"])
def project_kernel(
    images,
    atoms,
    buffer,
    height: tl.int32,
    width: tl.int32,
    patches_w: tl.int32,
    patches: tl.int32,
    first: tl.int32,
    end: tl.int32,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Patches ``first`` to ``end`` - 1 to ``buffer``, (end - first, ATOMS) float32."""
    ATOM_GROUPS: tl.constexpr = (ATOMS + ATOM_TILE - 1) // ATOM_TILE
    place = tl.program_id(0) // ATOM_GROUPS * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    first_atom = tl.program_id(0) % ATOM_GROUPS * ATOM_TILE
    patch = first + place
    live = patch < end
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project(images, atoms, origin, live, first_atom, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE)
    atom = first_atom + tl.arange(0, ATOM_TILE)[None, :]
    tl.store(buffer + place * ATOMS + atom, a, mask=live & (atom < ATOMS))


@triton.jit(do_not_specialize=["first", "end"])
def search_kernel(
    buffer,
    selected,
    projection,
    first: tl.int32,
    end: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
):
    """Top T of the patches in ``buffer``; the selection is that of the whole batch."""
    place = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    patch = first + place
    live = patch < end
    row = buffer + place * ATOMS
    column = tl.arange(0, ATOM_TILE)[None, :]

    low, high = widest_interval(PATCH_TILE)
    while tl.max(high - low) > 1:
        middle = midpoint(low, high)
        reached = tl.zeros((PATCH_TILE, 1), tl.int32)
        for first_atom in range(0, ATOMS, ATOM_TILE):
            reached += row_reach(magnitudes(*load_projections(row, first_atom + column, live, ATOMS)), middle)
        low, high = narrow(low, high, middle, reached, TOP_T)

    places = tl.full((PATCH_TILE, 1), TOP_T, tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        places -= row_count(magnitudes(*load_projections(row, first_atom + column, live, ATOMS)) > low)

    used = tl.zeros((PATCH_TILE, 1), tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        atom = first_atom + column
        a, valid = load_projections(row, atom, live, ATOMS)
        bits = magnitudes(a, valid)
        keep = chosen(bits, low, places)
        offset = patch.to(tl.int64) * TOP_T + next_slots(keep, used)
        places -= row_count(bits == low)
        used += row_count(keep)
        keep = keep & live
        tl.store(selected + offset, tl.broadcast_to(atom, keep.shape).to(tl.int16), mask=keep)
        tl.store(projection + offset, a, mask=keep)


@triton.jit
def load_projections(row, atom, live, ATOMS: tl.constexpr):
    """Projections, 0 where there are none, and which atoms exist."""
    return tl.load(row + atom, mask=live & (atom < ATOMS), other=0.0), atom < ATOMS


def select_large_launches(
    images: Tensor, atoms: Tensor, atom: Tensor, projection: Tensor, sizes: dict[str, int], constants: dict[str, int]
) -> Iterator[Launch]:
    """``sizes`` and ``constants`` are the arguments and compile-time parameters of ``select_kernel``."""
    count, tile = constants["ATOMS"], constants["ATOM_TILE"]
    total = sizes["total"]
    step = min(BUFFER_NUMBERS // count, total)
    buffer = images.new_empty(step, count)
    where = {name: sizes[name] for name in ("height", "width", "patches_w", "patches")}
    shared = {name: constants[name] for name in ("ATOMS", "PATCH_TILE", "ATOM_TILE")}
    projecting = {name: constants[name] for name in ("CHANNELS", "PATCH", "STRIDE", "PIXEL_SLICE")}
    for first in range(0, total, max(step, 1)):
        end = min(first + step, total)
        part: dict[str, Tensor | int] = {"buffer": buffer, "first": first, "end": end}
        groups = tiles.blocks(end - first, tiles.PATCH_TILE)
        yield Launch(
            project_kernel,
            groups * tiles.blocks(count, tile),
            {"images": images, "atoms": atoms, **where, **part},
            shared | projecting,
            tiles.warps(tiles.PATCH_TILE * tile, 16),
        )
        yield Launch(
            search_kernel,
            groups,
            {"selected": atom, "projection": projection, **part},
            shared | {"TOP_T": constants["TOP_T"]},
            tiles.warps(tiles.PATCH_TILE * tile, 8),
        )
