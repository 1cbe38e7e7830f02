"""The checks of values before a launch.

A wrong value would make a kernel read outside of its tensors, or return numbers that mean nothing. On the CPU, under
the interpreter, the checks raise ``ValueError``. On an NVIDIA GPU they are device-side assertions, which end the
process with a message at the next wait, as PyTorch's indexing operations do: reading the values would make every
realization of an attack wait for the GPU. Kernels that read the values anyway hold the assertions themselves, and
``check_images`` launches a kernel of its own. ROCm has no device-side assertions, so the checks read the values there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import checks
from . import tiles
from .launch import Launch

RANGE_TILE = 1024


def has_device_assertions(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.version.hip is None


def check_index(index: Tensor, count: Tensor, num_atoms: int) -> None:
    """Refuses a code with atoms that do not exist, unless the kernels assert it."""
    if not has_device_assertions(index):
        checks.check_code(index, count, num_atoms)


def check_draw(atom: Tensor, num_atoms: int, image_ids: Tensor) -> None:
    """Refuses a selection with atoms that do not exist, and ids that do not fit a 32-bit word of the counter.

    Does nothing where the kernel asserts it.
    """
    if not has_device_assertions(atom):
        checks.check_image_ids(image_ids)
        checks.check_selection(atom, num_atoms)


def check_image_ids(image_ids: Tensor) -> None:
    """Refuses ids that do not fit a 32-bit word of the counter, unless the kernels assert it."""
    if not has_device_assertions(image_ids):
        checks.check_image_ids(image_ids)


def check_images(images: Tensor) -> None:
    """Refuses NaN and pixels outside [0, 1]."""
    if has_device_assertions(images):
        range_launch(images).run()
    else:
        checks.check_images(images)


@triton.jit(do_not_specialize=["total"])
def range_kernel(numbers, total: tl.int64, LOW: tl.constexpr, HIGH: tl.constexpr, TILE: tl.constexpr):
    """Asserts that all pixels are in range; NaN is not."""
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    x = tl.load(numbers + place, mask=place < total, other=LOW)
    tl.device_assert((x >= LOW) & (x <= HIGH), "images holds values outside [0, 1]; divide 8-bit pixels by 255")


def range_launch(images: Tensor) -> Launch:
    arguments = {"numbers": images.contiguous(), "total": images.numel()}
    constants = {"LOW": -checks.RANGE_TOLERANCE, "HIGH": 1 + checks.RANGE_TOLERANCE, "TILE": RANGE_TILE}
    return Launch(range_kernel, tiles.num_tiles(images.numel(), RANGE_TILE), arguments, constants, num_warps=4)
