"""Transposed convolution of a code, with bias and ReLU.

The pixels of a stride x stride cell are covered by the same patches. So a program owns a cell and a group of output
channels, and for each survivor of each of those patches adds the weights that lie over its pixels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import conv_shapes
from . import tiles
from .checks import check_index
from .launch import Launch
from .masks import only_if


@triton.jit(do_not_specialize=["patches_h", "patches_w", "height", "width", "cells_h", "cells_w"])
def conv_transpose_kernel(
    index,
    value,
    count,
    weight,
    bias,
    output,
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
    """``weight`` is (L, KERNEL_H, KERNEL_W, CHANNELS) in memory, ``output`` (rows, height, width, CHANNELS)."""
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
            used = only_if(atom >= 0, mask)
            w = tl.load(weight + atom * (KERNEL_H * KERNEL_W * CHANNELS) + entry, mask=used, other=0.0)
            result += v * w.to(tl.float32)

    if RELU:
        result = tl.maximum(result, 0.0, propagate_nan=tl.PropagateNan.ALL)
    y = cell_h * STRIDE_H + ky - PADDING_H
    x = cell_w * STRIDE_W + kx - PADDING_W
    mask = (ky < STRIDE_H) & (y >= 0) & (y < height) & (x >= 0) & (x < width) & (channel < CHANNELS)
    tl.store(output + ((row * height + y) * width + x) * CHANNELS + channel, result, mask=mask)


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
    shape = conv_shapes.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding)
    check_index(index, weight.shape[0])
    output = torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
    conv_transpose_launch((index, value, count), weight, bias, output, stride, padding, relu).run()
    return output


def conv_transpose_launch(
    code: tuple[Tensor, Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
    output: Tensor,
    stride: list[int],
    padding: list[int],
    relu: bool,
) -> Launch:
    """``code`` is index, value and count; ``output`` is channels_last."""
    index, value, count = (tensor.contiguous() for tensor in code)
    rows, channels, height, width = output.shape
    # Cells are counted from the pixel that the first patch's first weight falls on, padding off the image included.
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
        "patches_h": index.shape[1],
        "patches_w": index.shape[2],
        "height": height,
        "width": width,
        "cells_h": cells_h,
        "cells_w": cells_w,
    }
    pixel_tile = triton.next_power_of_2(stride[0] * stride[1])
    channel_tile = min(tiles.channel_tile(channels), max(1, tiles.LARGEST_TILE // pixel_tile))
    constants = window_constants(index, weight, stride, padding) | {
        "BIAS": bias is not None,
        "RELU": relu,
        "PIXEL_TILE": pixel_tile,
        "CHANNEL_TILE": channel_tile,
    }
    programs = rows * cells_h * cells_w * tiles.blocks(channels, channel_tile)
    return Launch(conv_transpose_kernel, programs, arguments, constants, tiles.warps(pixel_tile * channel_tile, 16))


def window_constants(index: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> dict[str, int]:
    """The compile-time parameters that all kernels of the transposed convolution share."""
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
