"""The transposed convolution of a code, forward and backward.

Forward, with bias and ReLU: all pixels of a stride x stride cell of the output are covered by the same patches. Each
program computes one cell for a group of output channels, and adds up the weights of all survivors of these patches.

Backward, to the code's values and to the weight: the weight's memory order is (L, kernel row, kernel column, channel),
so one kernel row of an atom is a contiguous run of numbers. The output's gradient under that row is a contiguous run
as well, since it is channels_last. Both kernels go through such runs in chunks.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from ..reference import relu_gradient
from . import tiles
from .checks import check_index
from .launch import Launch
from .occurrences import Occurrences, group_by_atom
from .tiles import only_if

# The most weights of a survivor that a program for the code's values handles at once.
VALUE_RUN = 128


@triton.jit(do_not_specialize=["atoms", "patches_h", "patches_w", "height", "width", "cells_h", "cells_w"])
def conv_transpose_kernel(
    index,
    value,
    count,
    weight,
    bias,
    output,
    atoms: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    height: tl.int32,
    width: tl.int32,
    cells_h: tl.int32,
    cells_w: tl.int32,
    CHANNELS: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    TOP_T: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    PIXEL_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    """One program for each cell. ``weight`` is (L, KERNEL_H, KERNEL_W, CHANNELS) in memory."""
    CHANNEL_GROUPS: tl.constexpr = (CHANNELS + CHANNEL_TILE - 1) // CHANNEL_TILE
    COVERING_H: tl.constexpr = (KERNEL_H + STRIDE_H - 1) // STRIDE_H
    COVERING_W: tl.constexpr = (KERNEL_W + STRIDE_W - 1) // STRIDE_W
    cell = tl.program_id(0) // CHANNEL_GROUPS
    row = (cell // (cells_h * cells_w)).to(tl.int64)
    cell_h = cell // cells_w % cells_h + PADDING_H // STRIDE_H
    cell_w = cell % cells_w + PADDING_W // STRIDE_W
    channel = tl.program_id(0) % CHANNEL_GROUPS * CHANNEL_TILE + tl.arange(0, CHANNEL_TILE)[None, :]
    in_cell = tl.arange(0, PIXEL_TILE)[:, None]
    ky = in_cell // STRIDE_W
    kx = in_cell % STRIDE_W

    result = tl.zeros((PIXEL_TILE, CHANNEL_TILE), tl.float32)
    if BIAS:
        result += tl.load(bias + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    all_exist = True
    for covering in range(0, COVERING_H * COVERING_W):
        back_h = covering // COVERING_W
        back_w = covering % COVERING_W
        i = cell_h - back_h
        j = cell_w - back_w
        inside = (i >= 0) & (i < patches_h) & (j >= 0) & (j < patches_w)
        patch = (row * patches_h + i) * patches_w + j
        y = ky + back_h * STRIDE_H
        x = kx + back_w * STRIDE_W
        mask = (ky < STRIDE_H) & (y < KERNEL_H) & (x < KERNEL_W) & (channel < CHANNELS)
        entry = (y * KERNEL_W + x) * CHANNELS + channel
        survivors = tl.minimum(tl.load(count + patch, mask=inside, other=0), TOP_T)
        for slot in range(0, survivors):
            atom = tl.load(index + patch * TOP_T + slot).to(tl.int64)
            v = tl.load(value + patch * TOP_T + slot)
            exists = (atom >= 0) & (atom < atoms)
            all_exist &= exists
            start = weight + atom * (KERNEL_H * KERNEL_W * CHANNELS)
            result += v * tl.load(start + entry, mask=only_if(exists, mask), other=0.0).to(tl.float32)
    tl.device_assert(all_exist, "index names an atom that the layer does not have")

    if RELU:
        result = tl.maximum(result, 0.0, propagate_nan=tl.PropagateNan.ALL)
    y = cell_h * STRIDE_H + ky - PADDING_H
    x = cell_w * STRIDE_W + kx - PADDING_W
    mask = (ky < STRIDE_H) & (y >= 0) & (y < height) & (x >= 0) & (x < width) & (channel < CHANNELS)
    tl.store(output + ((row * height + y) * width + x) * CHANNELS + channel, result, mask=mask)


@triton.jit
def within_line(x, run, width, CHANNELS: tl.constexpr):
    """Returns which numbers of a run of pixels from column ``x`` on are in a line of the output."""
    offset = x * CHANNELS + run
    return (offset >= 0) & (offset < width * CHANNELS)


@triton.jit
def load_gradient(grad_output, output, place, inside, RELU: tl.constexpr):
    """Loads the gradient to the output; 0 where ``inside`` is False, and where ReLU gave 0."""
    grad = tl.load(grad_output + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        grad = tl.where(tl.load(output + place, mask=inside, other=0.0).to(tl.float32) > 0, grad, 0.0)
    return grad


@triton.jit(do_not_specialize=["atoms", "patches_h", "patches_w", "height", "width"])
def value_kernel(
    grad_output,
    output,
    index,
    count,
    weight,
    grad_value,
    atoms: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    height: tl.int32,
    width: tl.int32,
    CHANNELS: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    TOP_T: tl.constexpr,
    EDGES: tl.constexpr,
    RELU: tl.constexpr,
    SLOT_TILE: tl.constexpr,
    RUN_TILE: tl.constexpr,
    UNUSED_TILE: tl.constexpr,
):
    """One program for each patch: the products of the gradient under it with the weights of its survivors."""
    RUN: tl.constexpr = KERNEL_W * CHANNELS
    patch = tl.program_id(0)
    y = patch // patches_w % patches_h * STRIDE_H - PADDING_H
    x = patch % patches_w * STRIDE_W - PADDING_W
    pixel = (patch // (patches_h * patches_w) * height + y) * width + x
    survivors = tl.minimum(tl.load(count + patch), TOP_T)
    index += patch.to(tl.int64) * TOP_T
    grad_value += patch.to(tl.int64) * TOP_T
    unknown = tl.zeros((SLOT_TILE,), tl.int32)
    for first in range(0, survivors, SLOT_TILE):
        slot = first + tl.arange(0, SLOT_TILE)
        used = slot < survivors
        atom = tl.load(index + slot, mask=used, other=0).to(tl.int32)
        exists = used & (atom >= 0) & (atom < atoms)
        unknown |= (used & ~exists).to(tl.int32)
        result = tl.zeros((SLOT_TILE, RUN_TILE), tl.float32)
        for ky in range(0, KERNEL_H):
            place = (pixel + ky * width).to(tl.int64) * CHANNELS
            for begin in range(0, RUN, RUN_TILE):
                run = begin + tl.arange(0, RUN_TILE)
                inside = run < RUN
                if EDGES:
                    inside &= within_line(x, run, width, CHANNELS)
                    inside = only_if((y + ky >= 0) & (y + ky < height), inside)
                grad = load_gradient(grad_output, output, place + run, inside, RELU)
                entry = (atom.to(tl.int64)[:, None] * KERNEL_H + ky) * RUN + run[None, :]
                w = tl.load(weight + entry, mask=exists[:, None] & inside[None, :], other=0.0)
                result += w.to(tl.float32) * grad[None, :]
        tl.store(grad_value + slot, tl.sum(result, axis=1), mask=exists)
    for first in range(0, TOP_T, UNUSED_TILE):
        slot = first + tl.arange(0, UNUSED_TILE)
        tl.store(grad_value + slot, tl.zeros((UNUSED_TILE,), tl.float32), mask=(slot >= survivors) & (slot < TOP_T))
    tl.device_assert(unknown == 0, "index names an atom that the layer does not have")


@triton.jit(do_not_specialize=["blocks", "height", "width"])
def weight_kernel(
    grad_output,
    output,
    ends,
    pixel,
    top,
    left,
    value,
    grad_weight,
    blocks: tl.int32,
    height: tl.int32,
    width: tl.int32,
    CHANNELS: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    EDGES: tl.constexpr,
    RELU: tl.constexpr,
    SLOT_TILE: tl.constexpr,
    RUN_TILE: tl.constexpr,
):
    """One program for each atom, kernel row and chunk. It adds up the atom's occurrences in the order of the patches.

    ``ends``, ``pixel``, ``top``, ``left`` and ``value`` are ``Occurrences``.
    """
    RUN: tl.constexpr = KERNEL_W * CHANNELS
    CHUNKS: tl.constexpr = (RUN + RUN_TILE - 1) // RUN_TILE
    atom = (tl.program_id(0) // (KERNEL_H * CHUNKS)).to(tl.int64)
    ky = tl.program_id(0) // CHUNKS % KERNEL_H
    run = tl.program_id(0) % CHUNKS * RUN_TILE + tl.arange(0, RUN_TILE)
    result = tl.zeros((SLOT_TILE, RUN_TILE), tl.float32)
    end = tl.load(ends + (atom + 1) * blocks - 1)
    for first in range(tl.load(ends + atom * blocks - 1, mask=atom > 0, other=0), end, SLOT_TILE):
        occurrence = first + tl.arange(0, SLOT_TILE)
        exists = occurrence < end
        v = tl.load(value + occurrence, mask=exists, other=0.0)
        place = (tl.load(pixel + occurrence, mask=exists, other=0) + ky * width).to(tl.int64) * CHANNELS
        inside = (run < RUN)[None, :]
        if EDGES:
            y = tl.load(top + occurrence, mask=exists, other=0) + ky
            exists &= (y >= 0) & (y < height)
            inside &= within_line(
                tl.load(left + occurrence, mask=exists, other=0)[:, None], run[None, :], width, CHANNELS
            )
        inside &= exists[:, None]
        grad = load_gradient(grad_output, output, place[:, None] + run[None, :], inside, RELU)
        result += v[:, None] * grad
    entry = (atom * KERNEL_H + ky) * RUN + run
    tl.store(grad_weight + entry, tl.sum(result, axis=0), mask=run < RUN)


def conv_transpose(
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    relu: bool,
) -> Tensor:
    output = ops.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding, relu)
    check_index(index, count, weight.shape[0])
    conv_transpose_launch((index, value, count), weight, bias, output, stride, padding, relu).run()
    return output


def conv_transpose_backward_value(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    grad_value = ops.conv_transpose_backward_value(grad_output, output, index, count, weight, stride, padding)
    check_index(index, count, weight.shape[0])
    value_launch(grad_output, output, index, count, weight, grad_value, stride, padding).run()
    return grad_value


def conv_transpose_backward_weight(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> tuple[Tensor, Tensor]:
    grad_weight, _ = ops.conv_transpose_backward_weight(
        grad_output, output, index, value, count, weight, stride, padding
    )
    num_atoms = weight.shape[0]
    check_index(index, count, num_atoms)
    code = (index.contiguous(), value.contiguous(), count.contiguous())
    occurrences = group_by_atom(*code, num_atoms, grad_output.shape[2:], stride, padding)
    weight_launch(grad_output, output, occurrences, grad_weight, padding).run()
    return grad_weight, relu_gradient(grad_output, output).sum((0, 2, 3), dtype=torch.float32)


def conv_transpose_launch(
    code: tuple[Tensor, Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
    output: Tensor,
    stride: list[int],
    padding: list[int],
    relu: bool,
) -> Launch:
    """Returns the launch that fills ``output``, which is channels_last. ``code`` is index, value and count."""
    index, value, count = (tensor.contiguous() for tensor in code)
    rows, channels, height, width = output.shape
    # Cells are counted from the pixel under the first weight of the first patch. Padding puts it outside the image.
    cells_h, cells_w = (
        (size - 1 + pad) // step + 1 - pad // step
        for size, step, pad in zip((height, width), stride, padding, strict=True)
    )
    arguments = {
        "index": index,
        "value": value,
        "count": count,
        "weight": weight.contiguous(memory_format=torch.channels_last),
        "bias": weight if bias is None else bias.contiguous(),
        "output": output,
        "atoms": weight.shape[0],
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
        "height": height,
        "width": width,
        "cells_h": cells_h,
        "cells_w": cells_w,
    }
    pixel_tile = tiles.next_power_of_2(stride[0] * stride[1])
    channel_tile = min(tiles.channel_tile(channels), max(1, tiles.LARGEST_TILE // pixel_tile))
    constants = window_constants(index, weight, stride, padding) | {
        "BIAS": bias is not None,
        "RELU": relu,
        "PIXEL_TILE": pixel_tile,
        "CHANNEL_TILE": channel_tile,
    }
    programs = rows * cells_h * cells_w * tiles.num_tiles(channels, channel_tile)
    return Launch(conv_transpose_kernel, programs, arguments, constants, tiles.warps(pixel_tile * channel_tile, 16))


def value_launch(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    grad_value: Tensor,
    stride: list[int],
    padding: list[int],
) -> Launch:
    arguments = gradient_arguments(grad_output, output) | {
        "index": index.contiguous(),
        "count": count.contiguous(),
        "weight": weight.contiguous(memory_format=torch.channels_last),
        "grad_value": grad_value,
        "atoms": weight.shape[0],
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
    }
    constants = window_constants(index, weight, stride, padding) | run_constants(output, weight, padding)
    constants |= {"RUN_TILE": min(constants["RUN_TILE"], VALUE_RUN), "UNUSED_TILE": tiles.slot_tile(index.shape[3])}
    # A warp alone does not wait for others.
    return Launch(value_kernel, count.numel(), arguments, constants, num_warps=1)


def weight_launch(
    grad_output: Tensor, output: Tensor | None, occurrences: Occurrences, grad_weight: Tensor, padding: list[int]
) -> Launch:
    num_atoms, channels, kernel_h, kernel_w = grad_weight.shape
    arguments = gradient_arguments(grad_output, output) | {
        **occurrences._asdict(),
        "grad_weight": grad_weight,
        "blocks": len(occurrences.ends) // num_atoms,
    }
    constants = run_constants(output, grad_weight, padding) | {
        "CHANNELS": channels,
        "KERNEL_H": kernel_h,
        "KERNEL_W": kernel_w,
    }
    programs = num_atoms * kernel_h * tiles.num_tiles(channels * kernel_w, constants["RUN_TILE"])
    return Launch(weight_kernel, programs, arguments, constants, run_warps(constants))


def gradient_arguments(grad_output: Tensor, output: Tensor | None) -> dict[str, Tensor | int]:
    grad_output = grad_output.contiguous(memory_format=torch.channels_last)
    return {
        "grad_output": grad_output,
        "output": grad_output if output is None else output.contiguous(memory_format=torch.channels_last),
        "height": grad_output.shape[2],
        "width": grad_output.shape[3],
    }


def run_constants(output: Tensor | None, weight: Tensor, padding: list[int]) -> dict[str, int]:
    return {
        "EDGES": any(padding),
        "RELU": output is not None,
        "SLOT_TILE": tiles.SURVIVOR_TILE,
        "RUN_TILE": tiles.run_tile(weight.shape[1] * weight.shape[3]),
    }


def run_warps(constants: dict[str, int]) -> int:
    return tiles.warps(constants["SLOT_TILE"] * constants["RUN_TILE"], 16)


def window_constants(index: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> dict[str, int]:
    """Returns the compile-time parameters that all kernels here share."""
    _, channels, kernel_h, kernel_w = weight.shape
    return {
        "CHANNELS": channels,
        "KERNEL_H": kernel_h,
        "KERNEL_W": kernel_w,
        "STRIDE_H": stride[0],
        "STRIDE_W": stride[1],
        "PADDING_H": padding[0],
        "PADDING_W": padding[1],
        "TOP_T": index.shape[3],
    }
