"""Poisons uninitialized memory, so that a test notices when a kernel forgets to write an output.

PyTorch often returns memory that holds zeros, or the right values of an earlier call. Poisoned, it holds NaN, or an
integer that is no index of anything.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.overrides import get_ignored_functions
from torch.utils._device import _device_constructors

# The allocations that kernels make, by the object that has them.
ALLOCATIONS = ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty"))


def poison_empty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisons what ``ALLOCATIONS`` return until the patches are undone."""
    # PyTorch keeps these tables from their first use on. They must know the functions that the patches replace.
    _device_constructors()
    get_ignored_functions()
    for owner, name in ALLOCATIONS:
        monkeypatch.setattr(owner, name, poisoning(getattr(owner, name)))


def poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the allocation with poison in its result. Tensors that a caller passes as ``out`` are left alone."""

    @functools.wraps(allocate)
    def run(*arguments: Any, **options: Any) -> Tensor:
        tensor = allocate(*arguments, **options)
        if "out" not in options and can_be_filled(tensor):
            with torch.no_grad():
                tensor.fill_(poison(tensor.dtype))
        return tensor

    return run


def can_be_filled(tensor: Tensor) -> bool:
    """Returns whether the tensor has memory of its own. While PyTorch traces, filling it would enter the graph."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or isinstance(tensor, FakeTensor):
        return False
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized and tensor.numel() > 0


def poison(dtype: torch.dtype) -> float | int:
    """Returns NaN, True for booleans, or an odd integer near the largest one of the dtype."""
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    if dtype == torch.bool:
        return True
    # fill_ takes no number above int64's range.
    return min(torch.iinfo(dtype).max, torch.iinfo(torch.int64).max) - 2
