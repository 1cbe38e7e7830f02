"""The survivors of a code, grouped by atom: a stable counting sort of them alone, without a wait for the device.

The patches are divided into blocks of ``PATCH_TILE``. One kernel counts how often each atom occurs in each block.
A running sum over these counts, from atom to atom and within an atom from block to block, says where each block's
occurrences of an atom end. A second kernel writes each survivor to its place: the end of what precedes its block, plus
the number of patches before it in the block that have the same atom. So an atom's occurrences are in the order of the
patches, and nothing depends on the order in which programs run.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import Launch

PATCH_TILE = 32


class Occurrences(NamedTuple):
    """The survivors of a code, in the order of their atoms, and for one atom in the order of the patches.

    Attributes:
        ends: (L, blocks) int32, where the occurrences of an atom in a block of patches end. They start where the entry
            before ends, and the first at 0.
        line, top, left: (slots,) int32, for each survivor: the line of the layer's output that its patch's first
            weight reaches, counted through all rows of the code; the line's number in its image; and the column.
            Padding puts ``top`` and ``left`` below 0. There is room for all slots; the rest is not written.
        value: (slots,) float32.
    """

    ends: Tensor
    line: Tensor
    top: Tensor
    left: Tensor
    value: Tensor


@triton.jit
def load_atoms(index, count, patch, slot, total, ATOMS: tl.constexpr, TOP_T: tl.constexpr):
    """Returns the atoms in a slot of some patches, where the slot is used, and where it names an atom that exists."""
    used = (patch < total) & (slot < tl.load(count + patch, mask=patch < total, other=0))
    atom = tl.load(index + patch.to(tl.int64) * TOP_T + slot, mask=used, other=0).to(tl.int32)
    return atom, used, used & (atom >= 0) & (atom < ATOMS)


@triton.jit
def slots_in_use(count, patch, total, TOP_T: tl.constexpr):
    """Returns the largest number of survivors among some patches."""
    return tl.minimum(tl.max(tl.load(count + patch, mask=patch < total, other=0)), TOP_T)


@triton.jit(do_not_specialize=["total", "blocks"])
def count_kernel(
    index,
    count,
    occurrences,
    total: tl.int32,
    blocks: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    PATCH_TILE: tl.constexpr,
):
    """One program for each block. ``occurrences`` is (L, blocks) and holds zeros."""
    block = tl.program_id(0)
    patch = block * PATCH_TILE + tl.arange(0, PATCH_TILE)
    all_exist = tl.full((PATCH_TILE,), True, tl.int1)
    for slot in range(0, slots_in_use(count, patch, total, TOP_T)):
        atom, used, exists = load_atoms(index, count, patch, slot, total, ATOMS, TOP_T)
        all_exist &= exists == used
        # Sums of integers do not depend on their order.
        tl.atomic_add(occurrences + atom.to(tl.int64) * blocks + block, 1, mask=exists, sem="relaxed")
    tl.device_assert(all_exist, "index names an atom that the layer does not have")


@triton.jit(do_not_specialize=["total", "blocks", "patches_h", "patches_w", "height"])
def place_kernel(
    index,
    value,
    count,
    ends,
    line,
    top,
    left,
    value_by_atom,
    total: tl.int32,
    blocks: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    height: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    PATCH_TILE: tl.constexpr,
):
    """One program for each block."""
    block = tl.program_id(0)
    first = block * PATCH_TILE
    patch = first + tl.arange(0, PATCH_TILE)
    others = first + tl.arange(0, PATCH_TILE)[None, :]
    precedes = others < patch[:, None]
    slots = slots_in_use(count, patch, total, TOP_T)
    y = patch // patches_w % patches_h * STRIDE_H - PADDING_H
    x = patch % patches_w * STRIDE_W - PADDING_W
    first_line = patch // (patches_h * patches_w) * height + y
    for slot in range(0, slots):
        atom, _, exists = load_atoms(index, count, patch, slot, total, ATOMS, TOP_T)
        earlier = tl.zeros((PATCH_TILE, PATCH_TILE), tl.int32)
        for other in range(0, slots):
            other_atom, _, other_exists = load_atoms(index, count, others, other, total, ATOMS, TOP_T)
            earlier += (other_exists & precedes & (other_atom == atom[:, None])).to(tl.int32)
        before = atom.to(tl.int64) * blocks + block - 1
        start = tl.load(ends + before, mask=exists & (before >= 0), other=0)
        place = start + tl.sum(earlier, axis=1)
        tl.store(line + place, first_line, mask=exists)
        tl.store(top + place, y, mask=exists)
        tl.store(left + place, x, mask=exists)
        v = tl.load(value + patch.to(tl.int64) * TOP_T + slot, mask=exists, other=0.0)
        tl.store(value_by_atom + place, v, mask=exists)


def group_by_atom(
    index: Tensor, value: Tensor, count: Tensor, num_atoms: int, height: int, stride: list[int], padding: list[int]
) -> Occurrences:
    """Groups the survivors of a code by atom.

    Args:
        index, value, count: The code, contiguous.
        num_atoms: L.
        height: Of the layer's output.
        stride, padding: Of the layer.
    """
    counting, ends = count_launch(index, count, num_atoms)
    counting.run()
    torch.cumsum(ends.flatten(), 0, dtype=torch.int32, out=ends.view(-1))
    placing, occurrences = place_launch(index, value, count, ends, height, stride, padding)
    placing.run()
    return occurrences


def count_launch(index: Tensor, count: Tensor, num_atoms: int) -> tuple[Launch, Tensor]:
    """Returns the launch that counts occurrences, and the zeros that it adds to, (L, blocks)."""
    blocks = max(tiles.num_tiles(count.numel(), PATCH_TILE), 1)
    occurrences = index.new_zeros((num_atoms, blocks), dtype=torch.int32)
    arguments = {
        "index": index,
        "count": count,
        "occurrences": occurrences,
        "total": count.numel(),
        "blocks": blocks,
    }
    constants = {"ATOMS": num_atoms, "TOP_T": index.shape[3], "PATCH_TILE": PATCH_TILE}
    return Launch(count_kernel, blocks, arguments, constants, num_warps=1), occurrences


def place_launch(
    index: Tensor, value: Tensor, count: Tensor, ends: Tensor, height: int, stride: list[int], padding: list[int]
) -> tuple[Launch, Occurrences]:
    """Returns the launch that writes survivors to their places, and the tensors that it fills."""
    line, top, left = (index.new_empty(index.numel(), dtype=torch.int32) for _ in range(3))
    occurrences = Occurrences(ends, line, top, left, value.new_empty(index.numel()))
    arguments = {
        "index": index,
        "value": value,
        "count": count,
        "ends": ends,
        "line": line,
        "top": top,
        "left": left,
        "value_by_atom": occurrences.value,
        "total": count.numel(),
        "blocks": ends.shape[1],
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
        "height": height,
    }
    constants = {
        "ATOMS": len(ends),
        "TOP_T": index.shape[3],
        "STRIDE_H": stride[0],
        "STRIDE_W": stride[1],
        "PADDING_H": padding[0],
        "PADDING_W": padding[1],
        "PATCH_TILE": PATCH_TILE,
    }
    return Launch(place_kernel, ends.shape[1], arguments, constants, num_warps=1), occurrences
