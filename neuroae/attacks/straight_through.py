"""Straight-through gradients for a whole model at once: rounding, signs, casts, comparisons and look-ups.

The forward pass stays exact. Rounding passes the gradient on as the identity would. A cast to integers, a comparison
or a look-up gives a tensor that cannot carry a gradient; it is given a *shadow*, a floating-point tensor of the same
values with a gradient, and whatever turns it into numbers again takes the gradient of the shadow.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..utils.modules import Wrapper
from .bpda import substitute

ROUNDING = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn"}
CASTS = {"to", "type", "type_as", "int", "long", "short", "byte", "char", "bool"}
GREATER, LESS = {"gt", "ge", "greater", "greater_equal"}, {"lt", "le", "less", "less_equal"}
LOOK_UPS = {"bucketize", "searchsorted"}
# How far from its threshold a comparison counts, in mean distances from it.
COMPARISON_WIDTH = 0.5
SHADOW = "_neuroae_shadow"


class StraightThrough(Wrapper):
    """A model whose rounding, signs, casts, comparisons and look-ups pass gradients on.

    Works on what the model computes by PyTorch's functions, not on NumPy or compiled code.
    """

    def forward(self, images: Tensor, **draws: Any) -> Tensor:
        """Returns the model's exact logits (B, classes)."""
        with StraightThroughMode():
            return self.model(images, **draws)


class StraightThroughMode(TorchFunctionMode):
    """Within the block, PyTorch's functions without a gradient are given one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in ROUNDING and args and carries(args[0]):
            return rounded(func, name, args, kwargs)
        if not any(carries(value) for value in flat((*args, *kwargs.values()))):
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        has_gradient = not has_shadow((*args, *kwargs.values()))
        if not isinstance(result, Tensor) or (result.is_floating_point() and has_gradient):
            return result
        try:
            stand_in = stand_in_of(name, func, args, kwargs, result)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return result
        return result if stand_in is None or stand_in.shape != result.shape else with_gradient(result, stand_in)


def carries(value: object) -> bool:
    """Returns whether a value is a tensor with a gradient, or with a shadow that has one."""
    return isinstance(value, Tensor) and (value.requires_grad or hasattr(value, SHADOW))


def flat(values: tuple[Any, ...]) -> list[Any]:
    """Returns the values, with lists and tuples among them replaced by what they hold."""
    return [part for value in values for part in (value if isinstance(value, (list, tuple)) else (value,))]


def has_shadow(values: tuple[Any, ...]) -> bool:
    """Returns whether one of the values, or of what they hold, is a tensor with a shadow."""
    return any(isinstance(value, Tensor) and hasattr(value, SHADOW) for value in flat(values))


def shadow_of(value: Any) -> Any:
    """Returns a tensor's shadow if it has one, else the value itself; also for what tuples and lists hold."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(shadow_of, value))
    return getattr(value, SHADOW, value) if isinstance(value, Tensor) else value


def with_gradient(result: Tensor, stand_in: Tensor) -> Tensor:
    """Returns the exact result with the stand-in's gradient; integers and truth values have it in a shadow."""
    if result.is_floating_point():
        return substitute(result, stand_in)
    setattr(result, SHADOW, substitute(result.detach().to(stand_in.dtype), stand_in))
    return result


def rounded(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns the result of a rounding with the gradient of the identity; a rounding in place gives a new tensor."""
    source = shadow_of(args[0])
    with torch.no_grad():
        result = getattr(torch.Tensor, name)(args[0].detach(), *args[1:], **kwargs)
    return with_gradient(result, source) if isinstance(result, Tensor) else result


def stand_in_of(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
) -> Tensor | None:
    """Returns a floating-point tensor whose gradient stands for the function's; None if there is none."""
    smooth = tuple(map(shadow_of, args))
    if name in CASTS:
        return smooth[0] if carries(args[0]) else None
    if name in GREATER | LESS and len(smooth) == 2:
        return crossing(smooth[0], smooth[1]) if name in GREATER else crossing(smooth[1], smooth[0])
    if name in ("eq", "ne") and len(smooth) == 2:
        equal = torch.exp(-((smooth[0] - smooth[1]) ** 2))
        return equal if name == "eq" else 1 - equal
    if name in ("logical_not", "invert", "bitwise_not") and result.dtype == torch.bool:
        return 1 - smooth[0]
    if name in ("logical_and", "and", "bitwise_and") and result.dtype == torch.bool:
        return smooth[0] * smooth[1]
    if name in ("logical_or", "or", "bitwise_or") and result.dtype == torch.bool:
        return smooth[0] + smooth[1] - smooth[0] * smooth[1]
    if name == "where" and len(smooth) == 3:
        return smooth[0] * smooth[1] + (1 - smooth[0]) * smooth[2]
    if name == "masked_fill" and len(smooth) == 3:
        return smooth[0] * (1 - smooth[1]) + smooth[1] * smooth[2]
    if name == "one_hot":
        classes = torch.arange(result.shape[-1], device=result.device)
        return torch.softmax(-((smooth[0][..., None] - classes) ** 2), -1)
    if name in ("floor_divide", "floordiv"):
        return smooth[0] / smooth[1]
    if name in LOOK_UPS:
        values, edges = (smooth[0], smooth[1]) if name == "bucketize" else (smooth[1], smooth[0])
        return crossing(values[..., None], edges).sum(-1) if edges.dim() == 1 else None
    if name == "embedding":
        return read_from(args[1], args[0])
    if name == "getitem":
        is_table = isinstance(args[1], Tensor) and hasattr(args[1], SHADOW)
        return read_from(args[0], args[1]) if is_table else func(*smooth)
    options = {key: shadow_of(value) for key, value in kwargs.items() if key != "dtype"}
    generic = func(*smooth, **options)
    return generic if isinstance(generic, Tensor) and generic.is_floating_point() else None


def crossing(higher: Any, lower: Any) -> Tensor:
    """Returns a smooth step from 0 to 1 where ``higher`` passes ``lower``; its width follows their mean distance."""
    distance = torch.as_tensor(higher - lower)
    distance = distance if distance.is_floating_point() else distance.float()
    width = COMPARISON_WIDTH * distance.detach().abs().mean().clamp(min=1e-6)
    return torch.sigmoid(distance / width)


def read_from(table: Tensor, index: Tensor) -> Tensor | None:
    """Returns rows of a table, with the slope between neighbouring rows as the gradient to the index's shadow."""
    if not hasattr(index, SHADOW) or index.dtype == torch.bool:
        return None
    last, shadow = len(table) - 1, getattr(index, SHADOW)
    above, below = (index + 1).clamp(max=last), (index - 1).clamp(min=0)
    span = (above - below).clamp(min=1).to(table.dtype)
    moved = shadow - shadow.detach()
    for _ in range(table.dim() - 1):
        span, moved = span[..., None], moved[..., None]
    return table[index] + (table[above] - table[below]) / span * moved
