"""The table of operations, and the checks of types and shapes that their declarations share."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Declaration = TypeVar("Declaration", bound=Callable[..., Any])

OPERATIONS: dict[str, Callable[..., Any]] = {}


def operation(declaration: Declaration) -> Declaration:
    """Adds a declaration to ``OPERATIONS``, under its name."""
    OPERATIONS[declaration.__name__] = declaration
    return declaration


def require(condition: bool, message: str) -> None:
    """Raises ``ValueError`` with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_tensor(name: str, tensor: Tensor, dtype: torch.dtype, dims: int) -> None:
    """Requires a tensor of this dtype with this number of dimensions.

    Raises:
        TypeError: The dtype differs.
        ValueError: The number of dimensions differs.
    """
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected {dtype}")
    require(tensor.dim() == dims, f"{name} has shape {tuple(tensor.shape)}, expected {dims} dimensions")
