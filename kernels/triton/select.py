"""Projection and top T of all patches.

Each program holds the projections of some patches in registers. If the dictionary is too large for that, two kernels
take turns: one fills a buffer of 256 MiB with projections of as many patches as fit, and the other selects from it.
So memory does not grow with the batch, and each kernel only reads what an earlier kernel has written.
"""

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import search, tiles
from .checks import check_images
from .launch import Launch
from .steps import (
    above_cut,
    magnitudes,
    midpoint,
    narrow,
    next_slots,
    patch_origins,
    project,
    project_all,
    row_count,
    row_reach,
    widest_interval,
)

BUFFER_NUMBERS = 2**26


@triton.jit(do_not_specialize=["height", "width", "patches_w", "patches", "total"])
def select_kernel(
    images,
    atoms,
    selected,
    projection,
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
    FIRST: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    first = tl.program_id(0) * PATCH_TILE
    patch = first + tl.arange(0, PATCH_TILE)[:, None]
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project_all(
        images, atoms, origin, patch < total, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE
    )
    atom = search.lane_atoms(ATOM_TILE)
    place = search.lane_patches(PATCH_TILE)
    start = first.to(tl.int64) * TOP_T
    write_top(selected + start, projection + start, a, atom, place, first + place < total, ATOMS, TOP_T, FIRST)


@triton.jit
def write_top(
    selected, projection, a, atom, place, live, ATOMS: tl.constexpr, TOP_T: tl.constexpr, FIRST: tl.constexpr
):
    """Writes the top T of the patches that ``live`` marks, where ``selected`` and ``projection`` hold ``place`` 0."""
    cut, lane_number = search.find_cut(a, atom, ATOMS, TOP_T, FIRST)
    if search.has_ties(lane_number, live, TOP_T):
        cut, last = search.place_ties(a, atom, lane_number, cut, TOP_T)
        cut = search.only_live(cut, live)
        write_patches(selected, projection, a, atom, place, cut, cut, last, True, TOP_T)
    else:
        cut = search.only_live(cut, live)
        write_patches(selected, projection, a, atom, place, lane_number, cut, cut, False, TOP_T)


@triton.jit
def write_patches(
    selected,
    projection,
    a,
    atom,
    place,
    lane_number,
    cut,
    last,
    TIES: tl.constexpr,
    TOP_T: tl.constexpr,
):
    """Writes the patches one by one: the slots of all at once take too many registers."""
    if a.shape[0] > 1:
        a_0, a_1 = search.patch_halves(a)
        place_0, place_1 = search.patch_halves(place)
        number_0, number_1 = search.patch_halves(lane_number)
        cut_0, cut_1 = search.patch_halves(cut)
        last_0, last_1 = search.patch_halves(last)
        write_patches(selected, projection, a_0, atom, place_0, number_0, cut_0, last_0, TIES, TOP_T)
        write_patches(selected, projection, a_1, atom, place_1, number_1, cut_1, last_1, TIES, TOP_T)
    else:
        number = search.selected(a, atom, cut, last, TIES)
        if TIES:
            lane_number = tl.sum(number, axis=1, keep_dims=True)
        write_slots(selected, projection, number, lane_number, a, atom, place * TOP_T)


@triton.jit
def write_slots(index, projection, number, lane_number, a, atom, first):
    """Writes atoms and projections where ``number`` is 1, from slot ``first`` on.

    A GPU has few registers for masks, so it takes four atoms of a lane at once. With 32 atoms in a lane, projections
    leave no registers for the addresses of more than one store.
    """
    PIECE: tl.constexpr = 4 if a.shape[1] < 32 else a.shape[1]
    slot = search.slots(number, lane_number, first)
    write_where(index, projection, slot, number, a, atom, PIECE)


@triton.jit
def write_where(index, projection, slot, number, a, atom, PIECE: tl.constexpr):
    """Writes atoms and projections to slots where ``number`` is 1, PIECE atoms of a lane at once."""
    if a.shape[1] > PIECE:
        slot_0, slot_1 = search.atom_halves(slot)
        number_0, number_1 = search.atom_halves(number)
        a_0, a_1 = search.atom_halves(a)
        atom_0, atom_1 = search.atom_halves(atom)
        write_where(index, projection, slot_0, number_0, a_0, atom_0, PIECE)
        write_where(index, projection, slot_1, number_1, a_1, atom_1, PIECE)
    else:
        tl.store(index + slot, tl.broadcast_to(atom, number.shape).to(tl.int16), mask=number > 0)
        tl.store(projection + slot, a, mask=number > 0)


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
    """Writes projections of patches ``first`` to ``end`` - 1 to ``buffer``, (end - first, ATOMS) float32."""
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
    """Selects the top T of the patches in ``buffer``. ``selected`` and ``projection`` belong to the whole batch."""
    place = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    patch = first + place
    live = patch < end
    row = buffer + place * ATOMS
    column = tl.arange(0, ATOM_TILE)[None, :]

    low = search_row(row, live, ATOMS, TOP_T, PATCH_TILE, ATOM_TILE)
    places = tl.full((PATCH_TILE, 1), TOP_T, tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        places -= row_count(magnitudes(*load_projections(row, first_atom + column, live, ATOMS)) > low)

    num_used = tl.zeros((PATCH_TILE, 1), tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        atom = first_atom + column
        a, valid = load_projections(row, atom, live, ATOMS)
        bits = magnitudes(a, valid)
        keep = above_cut(bits, low, places)
        offset = patch.to(tl.int64) * TOP_T + next_slots(keep, num_used)
        places -= row_count(bits == low)
        num_used += row_count(keep)
        keep = keep & live
        tl.store(selected + offset, tl.broadcast_to(atom, keep.shape).to(tl.int16), mask=keep)
        tl.store(projection + offset, a, mask=keep)


@triton.jit
def search_row(row, live, ATOMS: tl.constexpr, TOP_T: tl.constexpr, PATCH_TILE: tl.constexpr, ATOM_TILE: tl.constexpr):
    """Returns the T-th magnitude of each row of the buffer, as bits, (PATCH_TILE, 1)."""
    column = tl.arange(0, ATOM_TILE)[None, :]
    low, high = widest_interval(PATCH_TILE)
    while tl.max(high - low) > 1:
        middle = midpoint(low, high)
        reached = tl.zeros((PATCH_TILE, 1), tl.int32)
        for first_atom in range(0, ATOMS, ATOM_TILE):
            reached += row_reach(magnitudes(*load_projections(row, first_atom + column, live, ATOMS)), middle)
        low, high = narrow(low, high, middle, reached, TOP_T)
    return low


@triton.jit
def load_projections(row, atom, live, ATOMS: tl.constexpr):
    """Returns projections, 0 beyond the last atom and patch, and the mask of atoms that exist."""
    return tl.load(row + atom, mask=live & (atom < ATOMS), other=0.0), atom < ATOMS


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    atom, projection = ops.select(images, atoms, stride, top_t)
    check_images(images)
    for launch in select_launches(images, atoms, atom, projection, stride):
        launch.run()
    return atom, projection


def select_launches(images: Tensor, atoms: Tensor, atom: Tensor, projection: Tensor, stride: int) -> Iterator[Launch]:
    """Yields the launches that fill ``atom`` and ``projection``, whose shape gives the number of patches, and T."""
    inputs = {"images": images.contiguous(), "atoms": atoms.contiguous()}
    selection = {"selected": atom, "projection": projection}
    sizes = patch_arguments(images, atom)
    constants = dictionary_constants(atoms, stride, atom.shape[3])
    if not tiles.fits_registers(atoms.shape[0]):
        yield from buffer_launches(search_kernel, selection, ("TOP_T",), inputs, sizes, constants)
        return
    constants |= search_constants(atoms.shape[0], atom.shape[3])
    patch_tile = constants["PATCH_TILE"]
    programs = tiles.num_tiles(sizes["total"], patch_tile)
    yield Launch(select_kernel, programs, inputs | selection | sizes, constants, patch_tile // tiles.WARP_PATCHES)


def buffer_launches(
    kernel: Any,
    arguments: dict[str, Any],
    names: tuple[str, ...],
    inputs: dict[str, Tensor],
    sizes: dict[str, int],
    constants: dict[str, int],
) -> Iterator[Launch]:
    """Yields pairs of launches, each pair for a part of the batch: the first fills the buffer, ``kernel`` reads it.

    Args:
        kernel: A kernel that searches the buffer.
        arguments: Its arguments without ``buffer``, ``first`` and ``end``.
        names: The names of its compile-time parameters, without those of the tiles.
        inputs: Images and atoms, by parameter.
        sizes: The result of ``patch_arguments``.
        constants: The compile-time parameters of both kernels.
    """
    num_atoms, tile, total = constants["ATOMS"], constants["ATOM_TILE"], sizes["total"]
    step = min(BUFFER_NUMBERS // num_atoms, total)
    buffer = inputs["images"].new_empty(step, num_atoms)
    geometry = {name: sizes[name] for name in ("height", "width", "patches_w", "patches")}
    tiling = {name: constants[name] for name in ("ATOMS", "PATCH_TILE", "ATOM_TILE")}
    patch_constants = {name: constants[name] for name in ("CHANNELS", "PATCH", "STRIDE", "PIXEL_SLICE")}
    for first in range(0, total, max(step, 1)):
        end = min(first + step, total)
        part: dict[str, Tensor | int] = {"buffer": buffer, "first": first, "end": end}
        groups = tiles.num_tiles(end - first, tiles.PATCH_TILE)
        yield Launch(
            project_kernel,
            groups * tiles.num_tiles(num_atoms, tile),
            inputs | geometry | part,
            tiling | patch_constants,
            tiles.warps(tiles.PATCH_TILE * tile, 16),
        )
        yield Launch(
            kernel,
            groups,
            arguments | part,
            tiling | {name: constants[name] for name in names},
            tiles.warps(tiles.PATCH_TILE * tile, 8),
        )


def patch_arguments(images: Tensor, code: Tensor) -> dict[str, int]:
    """Returns the arguments that locate patches, for a code (or selection) of these images."""
    batch, patches_h, patches_w, _ = code.shape
    patches = patches_h * patches_w
    return {
        "height": images.shape[2],
        "width": images.shape[3],
        "patches_w": patches_w,
        "patches": patches,
        "total": batch * patches,
    }


def search_constants(num_atoms: int, top_t: int) -> dict[str, Any]:
    """Returns the compile-time parameters of a kernel that searches in registers."""
    atom_tile = tiles.search_tile(num_atoms)
    return {
        "FIRST": first_candidate(num_atoms, top_t),
        "PATCH_TILE": tiles.WARP_PATCHES * tiles.search_warps(atom_tile),
        "ATOM_TILE": atom_tile,
        "PIXEL_SLICE": 16 if tiles.fits_fused(num_atoms) else 8,
    }


def first_candidate(num_atoms: int, top_t: int) -> float:
    """Returns where the search starts, from the mean magnitude (0) to the greatest (1).

    The T-th of L normal numbers lies about this far between, with the greatest at two standard deviations.
    """
    return round(NormalDist().inv_cdf(1 - (top_t - 0.5) / num_atoms) / 2, 3)


def dictionary_constants(atoms: Tensor, stride: int, top_t: int) -> dict[str, int]:
    """Returns the compile-time parameters of a kernel that projects and selects."""
    num_atoms, channels, patch, _ = atoms.shape
    return {
        "ATOMS": num_atoms,
        "CHANNELS": channels,
        "PATCH": patch,
        "STRIDE": stride,
        "TOP_T": top_t,
        "PATCH_TILE": tiles.PATCH_TILE,
        "ATOM_TILE": tiles.atom_tile(num_atoms),
        "PIXEL_SLICE": tiles.pixel_slice(num_atoms),
    }
