"""Projection and top T of every patch, for draws to follow."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import shapes
from . import tiles
from .launch import Launch
from .project import patch_origins, project
from .select_large import select_large_launches
from .top_t import top_t
from .write import next_slots


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
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    patch = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project(images, atoms, origin, live, 0, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE)
    atom = tl.arange(0, ATOM_TILE)[None, :]
    keep = top_t(a, atom < ATOMS, TOP_T)
    offset = patch.to(tl.int64) * TOP_T + next_slots(keep, tl.zeros_like(patch))
    keep = keep & live
    tl.store(selected + offset, tl.broadcast_to(atom, keep.shape).to(tl.int16), mask=keep)
    tl.store(projection + offset, a, mask=keep)


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    shape = shapes.select(images, atoms, stride, top_t)
    shapes.check_images(images)
    atom = images.new_empty(shape, dtype=torch.int16)
    projection = images.new_empty(shape)
    for launch in select_launches(images, atoms, atom, projection, stride):
        launch.run()
    return atom, projection


def select_launches(images: Tensor, atoms: Tensor, atom: Tensor, projection: Tensor, stride: int) -> Iterator[Launch]:
    """``atom`` and ``projection`` receive the selection; their shape says how many patches there are, and T."""
    images, atoms = images.contiguous(), atoms.contiguous()
    sizes = patch_arguments(images, atom)
    constants = dictionary_constants(atoms, stride, atom.shape[3])
    if not tiles.fits_registers(atoms.shape[0]):
        yield from select_large_launches(images, atoms, atom, projection, sizes, constants)
        return
    yield Launch(
        select_kernel,
        tiles.blocks(sizes["total"], tiles.PATCH_TILE),
        {"images": images, "atoms": atoms, "selected": atom, "projection": projection} | sizes,
        constants,
        tiles.warps(tiles.PATCH_TILE * constants["ATOM_TILE"], 16),
    )


def patch_arguments(images: Tensor, code: Tensor) -> dict[str, int]:
    """Where patches lie, for a code (or selection) of these images."""
    batch, patches_h, patches_w, _ = code.shape
    patches = patches_h * patches_w
    return {
        "height": images.shape[2],
        "width": images.shape[3],
        "patches_w": patches_w,
        "patches": patches,
        "total": batch * patches,
    }


def dictionary_constants(atoms: Tensor, stride: int, top_t: int) -> dict[str, int]:
    """The compile-time parameters of a kernel that projects and selects."""
    count, channels, patch, _ = atoms.shape
    return {
        "ATOMS": count,
        "CHANNELS": channels,
        "PATCH": patch,
        "STRIDE": stride,
        "TOP_T": top_t,
        "PATCH_TILE": tiles.PATCH_TILE,
        "ATOM_TILE": tiles.atom_tile(count),
        "PIXEL_SLICE": tiles.pixel_slice(count),
    }
