"""Checks of single settings; each error names the argument, its value and what was expected."""

import math
from collections.abc import Callable

import torch


def check_integer(name: str, value: int, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name} is a {type(value).__name__}, expected an int")
    if not low <= value <= high:
        expected = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} is {value}, expected {expected}")


def check_number(name: str, value: float, valid: Callable[[float], bool], expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a number")
    if not (math.isfinite(value) and valid(value)):
        raise ValueError(f"{name} is {value}, expected {expected}")


def check_boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        kind = type(value)
        told = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        raise TypeError(f"{name} is a {told}, expected a bool")
