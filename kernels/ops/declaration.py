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


def require(condition: bool, message: str, *values: object) -> None:
    """Raises ``ValueError`` unless the condition holds.

    Args:
        condition: The condition.
        message: The error's message, with ``{}`` for each of ``values`` if there are any.
        values: They are formatted for an error only; formatting would take longer than the checks of an operation. A
            shape is shown as a tuple.
    """
    if not condition:
        shown = (tuple(value) if isinstance(value, torch.Size) else value for value in values)
        raise ValueError(message.format(*shown) if values else message)


def require_tensor(name: str, tensor: Tensor, dtype: torch.dtype, dims: int) -> None:
    """Requires a tensor of this dtype with this number of dimensions.

    Raises:
        TypeError: The dtype differs.
        ValueError: The number of dimensions differs.
    """
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected {dtype}")
    # Not by require, whose call would take longer than the check.
    if tensor.dim() != dims:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {dims} dimensions")
