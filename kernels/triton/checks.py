"""Checks on the values of a code, which no kernel could survive being wrong.

On the CPU, under the interpreter, they raise ValueError. On a GPU a wrong value ends the process in a device-side
assertion that says the same, as PyTorch's own operations on indices do: to read the values would make every
realization of an attack wait for the GPU. ROCm has no such assertions, so there they raise, and wait.
"""

import torch
from torch import Tensor

from .. import shapes


def check_index(index: Tensor, atoms: int) -> None:
    """Refuses atoms that do not exist."""
    if not asserts_on_device(index):
        highest = -1 if shapes.unreadable(index) else int(index.max())
        shapes.require(highest < atoms, f"index names atom {highest}, expected -1 to {atoms - 1}")
    elif index.numel():
        torch._assert_async(index.max() < atoms, f"index names an atom beyond {atoms - 1}, the last")


def check_drawn(atom: Tensor, atoms: int, image_ids: Tensor) -> None:
    """Refuses a selection of atoms that do not exist, and ids that do not fit the 32-bit counter word."""
    if not asserts_on_device(atom):
        shapes.check_image_ids(image_ids)
        shapes.check_selected(atom, atoms)
    elif atom.numel():
        torch._assert_async(all_within(image_ids, 2**32), "image_ids holds numbers outside [0, 2^32)")
        torch._assert_async(all_within(atom, atoms), f"atom names atoms outside [0, {atoms - 1}]")


def asserts_on_device(tensor: Tensor) -> bool:
    """Builds of PyTorch for ROCm leave device-side assertions out."""
    return tensor.is_cuda and torch.version.hip is None


def all_within(numbers: Tensor, limit: int) -> Tensor:
    low, high = numbers.aminmax()
    return (low >= 0) & (high < limit)
