"""Gradients of the transposed convolution of a code: to its values, and to weight and bias.

In memory order (L, kernel row, kernel column, channel) a row of an atom's weights is one run of numbers, and the
output's gradient under it, channels_last, is another. Both kernels walk such runs in chunks.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import conv_shapes
from ..reference import masked
from . import tiles
from .checks import check_index
from .conv_transpose import window_constants
from .launch import Launch
from .masks import only_if


@triton.jit
def load_run(grad_output, output, row, y, x, height, width, run, inside, CHANNELS: tl.constexpr, RELU: tl.constexpr):
    """Gradient at offsets ``run`` from pixel (y, x) in its image row, 0 outside the image and where ReLU was 0."""
    offset = x * CHANNELS + run
    inside = only_if((y >= 0) & (y < height), inside & (offset >= 0) & (offset < width * CHANNELS))
    place = (row * height + y) * width * CHANNELS + offset
    grad = tl.load(grad_output + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        grad = tl.where(tl.load(output + place, mask=inside, other=0.0).to(tl.float32) > 0, grad, 0.0)
    return grad


@triton.jit(do_not_specialize=["patches_h", "patches_w", "height", "width"])
def value_kernel(
    grad_output,
    output,
    index,
    count,
    weight,
    grad_value,
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
    RELU: tl.constexpr,
    SLOT_TILE: tl.constexpr,
    RUN_TILE: tl.constexpr,
):
    """One program a patch."""
    RUN: tl.constexpr = KERNEL_W * CHANNELS
    patch = tl.program_id(0).to(tl.int64)
    row = patch // (patches_h * patches_w)
    y = (patch // patches_w % patches_h).to(tl.int32) * STRIDE_H - PADDING_H
    x = (patch % patches_w).to(tl.int32) * STRIDE_W - PADDING_W
    survivors = tl.minimum(tl.load(count + patch), TOP_T)
    for first in range(0, TOP_T, SLOT_TILE):
        slot = first + tl.arange(0, SLOT_TILE)
        atom = tl.load(index + patch * TOP_T + slot, mask=slot < survivors, other=-1)
        used = atom >= 0
        result = tl.zeros((SLOT_TILE, RUN_TILE), tl.float32)
        if first < survivors:
            for ky in range(0, KERNEL_H):
                for begin in range(0, RUN, RUN_TILE):
                    run = begin + tl.arange(0, RUN_TILE)
                    grad = load_run(grad_output, output, row, y + ky, x, height, width, run, run < RUN, CHANNELS, RELU)
                    entry = (atom.to(tl.int64)[:, None] * KERNEL_H + ky) * RUN + run[None, :]
                    w = tl.load(weight + entry, mask=used[:, None] & (run < RUN)[None, :], other=0.0)
                    result += w.to(tl.float32) * grad[None, :]
        result = tl.where(used, tl.sum(result, axis=1), 0.0)
        tl.store(grad_value + patch * TOP_T + slot, result, mask=slot < TOP_T)


@triton.jit(do_not_specialize=["patches_h", "patches_w", "height", "width"])
def weight_kernel(
    grad_output,
    output,
    position,
    bounds,
    value,
    grad_weight,
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
    RELU: tl.constexpr,
    SLOT_TILE: tl.constexpr,
    RUN_TILE: tl.constexpr,
):
    """One program an atom, kernel row and chunk; it adds up the atom's occurrences in the order of the rows.

    ``position`` lists slots of the code sorted by atom; atom l's are those from ``bounds[l]`` to ``bounds[l + 1]``.
    """
    RUN: tl.constexpr = KERNEL_W * CHANNELS
    CHUNKS: tl.constexpr = (RUN + RUN_TILE - 1) // RUN_TILE
    atom = (tl.program_id(0) // (KERNEL_H * CHUNKS)).to(tl.int64)
    ky = tl.program_id(0) // CHUNKS % KERNEL_H
    run = tl.program_id(0) % CHUNKS * RUN_TILE + tl.arange(0, RUN_TILE)
    result = tl.zeros((SLOT_TILE, RUN_TILE), tl.float32)
    end = tl.load(bounds + atom + 1)
    for first in range(tl.load(bounds + atom), end, SLOT_TILE):
        occurrence = first + tl.arange(0, SLOT_TILE)
        exists = occurrence < end
        place = tl.load(position + occurrence, mask=exists, other=0)
        v = tl.load(value + place, mask=exists, other=0.0)
        patch = place // TOP_T
        row = patch // (patches_h * patches_w)
        y = (patch // patches_w % patches_h).to(tl.int32) * STRIDE_H - PADDING_H + ky
        x = (patch % patches_w).to(tl.int32) * STRIDE_W - PADDING_W
        grad = load_run(
            grad_output,
            output,
            row[:, None],
            y[:, None],
            x[:, None],
            height,
            width,
            run[None, :],
            exists[:, None] & (run < RUN)[None, :],
            CHANNELS,
            RELU,
        )
        result += v[:, None] * grad
    entry = (atom * KERNEL_H + ky) * RUN + run
    tl.store(grad_weight + entry, tl.sum(result, axis=0), mask=run < RUN)


def conv_transpose_backward_value(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    check_index(index, weight.shape[0])
    grad_value = grad_output.new_empty(index.shape, dtype=torch.float32)
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
    conv_shapes.check_value(value, index)
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    check_index(index, weight.shape[0])
    grad_weight = torch.empty_like(weight, dtype=torch.float32, memory_format=torch.channels_last)
    weight_launch(grad_output, output, index, value, grad_weight, stride, padding).run()
    return grad_weight, masked(grad_output, output).sum((0, 2, 3), dtype=torch.float32)


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
    arguments = gradient_arguments(grad_output, output, index) | {
        "index": index.contiguous(),
        "count": count.contiguous(),
        "weight": weight.contiguous(memory_format=torch.channels_last),
        "grad_value": grad_value,
    }
    constants = window_constants(index, weight, stride, padding) | run_constants(output, weight)
    return Launch(value_kernel, count.numel(), arguments, constants, run_warps(constants))


def weight_launch(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    value: Tensor,
    grad_weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Launch:
    atoms = grad_weight.shape[0]
    by_atom, position = index.flatten().sort(stable=True)
    bounds = torch.searchsorted(by_atom.int(), torch.arange(atoms + 1, dtype=torch.int32, device=index.device))
    arguments = gradient_arguments(grad_output, output, index) | {
        "position": position,
        "bounds": bounds,
        "value": value.contiguous(),
        "grad_weight": grad_weight,
    }
    constants = window_constants(index, grad_weight, stride, padding) | run_constants(output, grad_weight)
    chunks = tiles.blocks(grad_weight.shape[1] * grad_weight.shape[3], constants["RUN_TILE"])
    return Launch(weight_kernel, atoms * grad_weight.shape[2] * chunks, arguments, constants, run_warps(constants))


def gradient_arguments(grad_output: Tensor, output: Tensor | None, index: Tensor) -> dict[str, Tensor | int]:
    grad_output = grad_output.contiguous(memory_format=torch.channels_last)
    return {
        "grad_output": grad_output,
        "output": grad_output if output is None else output.contiguous(memory_format=torch.channels_last),
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
        "height": grad_output.shape[2],
        "width": grad_output.shape[3],
    }


def run_constants(output: Tensor | None, weight: Tensor) -> dict[str, int]:
    return {
        "RELU": output is not None,
        "SLOT_TILE": tiles.SURVIVOR_TILE,
        "RUN_TILE": tiles.run_tile(weight.shape[1] * weight.shape[3]),
    }


def run_warps(constants: dict[str, int]) -> int:
    return tiles.warps(constants["SLOT_TILE"] * constants["RUN_TILE"], 16)
