"""The survivors of a code, grouped by atom: a stable counting sort of them alone, without a wait for the device.

The patches are divided into blocks of ``PATCH_TILE``. One kernel counts how often each atom occurs in each block.
A running sum over these counts, from atom to atom and within an atom from block to block, says where each block's
occurrences of an atom start. A second kernel goes through the patches of a block in turn, and writes each survivor to
the next place of its atom and block. So an atom's occurrences are in the order of the patches, and nothing depends on
the order in which programs run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import Launch

PATCH_TILE = 16


class Occurrences(NamedTuple):
    """The survivors of a code, in the order of their atoms, and for one atom in the order of the patches.

    Attributes:
        ends: (L * blocks + 1,) int32. Entry atom * blocks + block says where the occurrences of an atom in a block of
            patches end. They start where the entry before ends, and the first at 0. The last entry is of no use.
        pixel: (slots,) int32, for each survivor: the pixel of the layer's output that its patch's first weight
            reaches, counted through all rows of the code. There is room for all slots; the rest is not written.
        top, left: (slots,) int32, the pixel's line and column in its image, below 0 where padding puts it outside.
            Not written without padding.
        value: (slots,) float32.
    """

    ends: Tensor
    pixel: Tensor
    top: Tensor
    left: Tensor
    value: Tensor


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
    """One program for each block. ``occurrences`` holds zeros; the count of an entry goes to the next one."""
    block = tl.program_id(0)
    patch = block * PATCH_TILE + tl.arange(0, PATCH_TILE)
    survivors = tl.minimum(tl.load(count + patch, mask=patch < total, other=0), TOP_T)
    all_exist = tl.full((PATCH_TILE,), True, tl.int1)
    for slot in range(0, tl.max(survivors)):
        used = slot < survivors
        atom = tl.load(index + patch.to(tl.int64) * TOP_T + slot, mask=used, other=0).to(tl.int32)
        exists = used & (atom >= 0) & (atom < ATOMS)
        all_exist &= exists == used
        # Sums of integers do not depend on their order.
        tl.atomic_add(occurrences + atom.to(tl.int64) * blocks + block + 1, 1, mask=exists, sem="relaxed")
    tl.device_assert(all_exist, "index names an atom that the layer does not have")


@triton.jit(do_not_specialize=["total", "blocks", "patches_h", "patches_w", "height", "width"])
def place_kernel(
    index,
    value,
    count,
    places,
    pixel,
    top,
    left,
    value_by_atom,
    total: tl.int32,
    blocks: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    height: tl.int32,
    width: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    SLOT_TILE: tl.constexpr,
):
    """One program of one warp for each block. ``places`` holds where occurrences start, and in the end where they end.

    The atoms of a patch differ, so no two of its survivors have the same place.
    """
    block = tl.program_id(0)
    first = block * PATCH_TILE
    j = first % patches_w
    i = first // patches_w % patches_h
    row = first // (patches_h * patches_w)
    for number in range(0, tl.minimum(PATCH_TILE, total - first)):
        patch = first + number
        y = i * STRIDE_H - PADDING_H
        x = j * STRIDE_W - PADDING_W
        survivors = tl.minimum(tl.load(count + patch), TOP_T)
        for first_slot in range(0, survivors, SLOT_TILE):
            slot = first_slot + tl.arange(0, SLOT_TILE)
            source = patch.to(tl.int64) * TOP_T + slot
            atom = tl.load(index + source, mask=slot < survivors, other=-1).to(tl.int32)
            exists = (atom >= 0) & (atom < ATOMS)
            entry = places + atom.to(tl.int64) * blocks + block
            place = tl.load(entry, mask=exists, other=0)
            tl.store(entry, place + 1, mask=exists)
            tl.store(value_by_atom + place, tl.load(value + source, mask=exists, other=0.0), mask=exists)
            tl.store(pixel + place, (row * height + y) * width + x + tl.zeros_like(slot), mask=exists)
            if PADDING_H + PADDING_W > 0:
                tl.store(top + place, y + tl.zeros_like(slot), mask=exists)
                tl.store(left + place, x + tl.zeros_like(slot), mask=exists)
        # The next patch reads what other threads have written to ``places``.
        tl.debug_barrier()
        # Without divisions, which a GPU computes by calls.
        j += 1
        i += (j == patches_w).to(tl.int32)
        j = tl.where(j == patches_w, 0, j)
        row += (i == patches_h).to(tl.int32)
        i = tl.where(i == patches_h, 0, i)


def group_by_atom(
    index: Tensor,
    value: Tensor,
    count: Tensor,
    num_atoms: int,
    size: Sequence[int],
    stride: list[int],
    padding: list[int],
) -> Occurrences:
    """Groups the survivors of a code by atom.

    Args:
        index, value, count: The code, contiguous.
        num_atoms: L.
        size: Height and width of the layer's output.
        stride, padding: Of the layer.
    """
    counting, places = count_launch(index, count, num_atoms)
    counting.run()
    places.cumsum_(0)
    placing, occurrences = place_launch((index, value, count), places, num_atoms, size, stride, padding)
    placing.run()
    return occurrences


def num_blocks(count: Tensor) -> int:
    """Returns the number of blocks of patches, at least one."""
    return max(tiles.num_tiles(count.numel(), PATCH_TILE), 1)


def count_launch(index: Tensor, count: Tensor, num_atoms: int) -> tuple[Launch, Tensor]:
    """Returns the launch that counts occurrences, and the zeros that it adds to."""
    blocks = num_blocks(count)
    occurrences = index.new_zeros(num_atoms * blocks + 1, dtype=torch.int32)
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
    code: tuple[Tensor, Tensor, Tensor],
    places: Tensor,
    num_atoms: int,
    size: Sequence[int],
    stride: list[int],
    padding: list[int],
) -> tuple[Launch, Occurrences]:
    """Returns the launch that writes survivors to their places, and the tensors that it fills.

    ``code`` is index, value and count. The launch makes ``places``, where occurrences start, ``ends``.
    """
    index, value, count = code
    pixel, top, left = (index.new_empty(index.numel(), dtype=torch.int32) for _ in range(3))
    occurrences = Occurrences(places, pixel, top, left, value.new_empty(index.numel()))
    blocks = num_blocks(count)
    arguments = {
        "index": index,
        "value": value,
        "count": count,
        "places": places,
        "pixel": pixel,
        "top": top,
        "left": left,
        "value_by_atom": occurrences.value,
        "total": count.numel(),
        "blocks": blocks,
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
        "height": size[0],
        "width": size[1],
    }
    constants = {
        "ATOMS": num_atoms,
        "TOP_T": index.shape[3],
        "STRIDE_H": stride[0],
        "STRIDE_W": stride[1],
        "PADDING_H": padding[0],
        "PADDING_W": padding[1],
        "PATCH_TILE": PATCH_TILE,
        "SLOT_TILE": tiles.WARP,
    }
    return Launch(place_kernel, blocks, arguments, constants, num_warps=1), occurrences
