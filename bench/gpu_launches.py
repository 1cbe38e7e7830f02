"""The kernels that the Triton backend launches in the paper's settings, and the tensors to launch them with.

The tensors are meta tensors, which have no memory: enough to compile a kernel. ``bench/gpu_trips.py`` replaces them
with real patches and a real code, to run kernels in Triton's interpreter.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroae.kernels.ops import Code, empty_code
from neuroae.kernels.triton.checks import range_launch
from neuroae.kernels.triton.conv_transpose import conv_transpose_launch, value_launch, weight_launch
from neuroae.kernels.triton.draw import draw_launch
from neuroae.kernels.triton.encode import encode_launch
from neuroae.kernels.triton.encode_backward import encode_backward_launch
from neuroae.kernels.triton.launch import Launch
from neuroae.kernels.triton.occurrences import count_launch, group_by_atom, place_launch
from neuroae.kernels.triton.select import select_launches
from neuroae.kernels.triton.selection_backward import selection_backward_launches
from neuroae.kernels.triton.tiles import fits_fused, fits_registers


@dataclass(frozen=True)
class Setting:
    """An encoder and the first layer of its decoder (output channels, kernel, stride)."""

    channels: int
    image_size: int
    patch: int
    stride: int
    num_atoms: int
    top_t: int
    layer: tuple[int, int, int]


SETTINGS = {
    "cifar10": Setting(3, 32, patch=4, stride=2, num_atoms=500, top_t=50, layer=(300, 4, 2)),
    "imagenette": Setting(3, 160, patch=8, stride=4, num_atoms=1000, top_t=50, layer=(300, 3, 1)),
    "odd": Setting(1, 8, patch=3, stride=2, num_atoms=7, top_t=1, layer=(5, 3, 3)),
    "large": Setting(3, 160, patch=8, stride=4, num_atoms=5000, top_t=100, layer=(300, 3, 1)),
}
BATCH = 64
REALIZATIONS = 8


@dataclass(frozen=True)
class Workload:
    """The tensors that the kernels of a setting read.

    Attributes:
        images: (batch, channels, height, width) float32.
        levels: Norms and dead zones, (L,) float32 each.
        selection: Atoms and projections of the top T.
        code: Index, value, projection and count of one realization.
    """

    setting: Setting
    images: Tensor
    atoms: Tensor
    levels: tuple[Tensor, Tensor]
    randomness: tuple[Tensor, Tensor]
    selection: tuple[Tensor, Tensor]
    code: Code

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns a tensor where the images are, without values."""
        return self.images.new_empty(shape, dtype=dtype)


def meta_workload(setting: Setting) -> Workload:
    """Returns tensors without memory."""
    images = torch.empty(BATCH, setting.channels, setting.image_size, setting.image_size, device="meta")
    side = (setting.image_size - setting.patch) // setting.stride + 1
    code = empty_code(images, (BATCH, side, side, setting.top_t))
    return Workload(
        setting,
        images,
        images.new_empty(setting.num_atoms, setting.channels, setting.patch, setting.patch),
        (images.new_empty(setting.num_atoms), images.new_empty(setting.num_atoms)),
        (images.new_empty(1, dtype=torch.int64), images.new_empty(BATCH, dtype=torch.int64)),
        (code[0], code[2]),
        code,
    )


def launches(workload: Workload) -> Iterator[tuple[str, Launch]]:
    """Yields all kernels that the backend launches with these tensors, by name."""
    setting, images, atoms, levels = workload.setting, workload.images, workload.atoms, workload.levels
    index, value, projection, count = workload.code
    batch, patches_h, patches_w, _ = index.shape
    encoded = empty_code(images, tuple(index.shape))

    yield "check of the images", range_launch(images)
    selection_launches = select_launches(images, atoms, encoded[0], encoded[2], setting.stride)
    if fits_fused(setting.num_atoms):
        yield (
            "encode",
            encode_launch(
                images,
                atoms,
                levels,
                workload.randomness,
                encoded,
                setting.stride,
                0,
                0.95,
                quantize=True,
                signed=True,
            ),
        )
    if fits_registers(setting.num_atoms):
        yield "select", next(selection_launches)
    else:
        yield "select: projections", next(selection_launches)
        yield "select: search", next(selection_launches)
    draws = empty_code(images, (REALIZATIONS * batch, patches_h, patches_w, setting.top_t))
    yield (
        "draw",
        draw_launch(
            workload.selection, levels, workload.randomness, draws, 0, REALIZATIONS, 0.95, quantize=True, signed=True
        ),
    )
    grad_images = torch.empty_like(images)
    for surrogate in ("identity", "smooth"):
        yield (
            f"encode_backward {surrogate}",
            encode_backward_launch(
                (value, index, projection, count),
                (atoms, *levels),
                grad_images,
                setting.stride,
                surrogate,
                0.25,
                True,
                True,
            ),
        )
    grad_code = workload.empty(batch, patches_h, patches_w, setting.num_atoms)
    *cuts, back_projection, fold = selection_backward_launches(
        grad_code,
        images,
        (atoms, *levels),
        grad_images,
        setting.stride,
        setting.top_t,
        0.02,
        quantize=True,
        signed=True,
    )
    for launch in cuts if fits_registers(setting.num_atoms) else cuts[-1:]:
        name = launch.kernel.__name__.removesuffix("_kernel").replace("_", " ")
        yield f"selection_backward: {name}", launch
    yield "selection_backward: back projection", back_projection
    yield "selection_backward: fold", fold
    for dtype in (torch.float32, torch.bfloat16):
        yield from layer_launches(workload, dtype)


def layer_launches(workload: Workload, dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """Yields the kernels of the decoder's first layer with ReLU, forward and backward."""
    index, value, _, count = workload.code
    channels, kernel, step = workload.setting.layer
    stride, padding = [step, step], [0, 0]
    weight = workload.empty(workload.setting.num_atoms, channels, kernel, kernel, dtype=dtype)
    height, width = size = [(patches - 1) * step + kernel for patches in index.shape[1:3]]
    output = workload.empty(len(index), channels, height, width, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    num_atoms = workload.setting.num_atoms
    counting, places = count_launch(index, count, num_atoms)
    placing, occurrences = place_launch((index, value, count), places, num_atoms, size, stride, padding)
    if dtype == torch.float32:
        yield "conv_transpose_backward_weight: count", counting
        yield "conv_transpose_backward_weight: place", placing
    if not index.is_meta:
        occurrences = group_by_atom(index, value, count, num_atoms, size, stride, padding)
    yield (
        f"conv_transpose {name}",
        conv_transpose_launch(
            (index, value, count), weight, workload.empty(channels, dtype=dtype), output, stride, padding, relu=True
        ),
    )
    yield (
        f"conv_transpose_backward_value {name}",
        value_launch(output, output, index, count, weight, torch.empty_like(value), stride, padding),
    )
    yield (
        f"conv_transpose_backward_weight {name}",
        weight_launch(output, output, occurrences, weight.float(), padding),
    )
