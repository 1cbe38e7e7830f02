"""Checks of single settings; each error names the argument, its value and what was expected."""

import math
from collections.abc import Callable

import torch


def check_integer(name: str, value: int, low: float, high: float = math.inf) -> None:
    """Refuses a value that is not an int in [low, high].

    Args:
        name: The argument's name, for the error.
        value: The argument's value.
        low: The lowest value allowed.
        high: The highest value allowed.

    Raises:
        TypeError: The value is not an int.
        ValueError: The value is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name} is a {type(value).__name__}, expected an int")
    if not low <= value <= high:
        expected = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} is {value}, expected {expected}")


def check_number(name: str, value: float, is_valid: Callable[[float], bool], expected: str) -> None:
    """Refuses a value that is not a finite number, or not a valid one.

    Args:
        name: The argument's name, for the error.
        value: The argument's value.
        is_valid: Returns whether a finite number is allowed.
        expected: What is allowed, in words, for the error.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not finite, or not valid.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a number")
    if not (math.isfinite(value) and is_valid(value)):
        raise ValueError(f"{name} is {value}, expected {expected}")


def check_boolean(name: str, value: object) -> None:
    """Refuses a value that is not a bool.

    Raises:
        TypeError: The value has another type.
    """
    if not isinstance(value, bool):
        kind = type(value)
        type_name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        raise TypeError(f"{name} is a {type_name}, expected a bool")
