"""Gradients without a derivative of their own say so to whoever asks for it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# Has autograd record the refusal even where no incoming gradient does, as behind a linear map.
RECORDED = torch.empty(0, requires_grad=True)


class Refusal(Function):
    """The gradient as it is; its derivative, to any of what it may depend on, is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *origins: Tensor) -> Tensor:
        # A view would not let itself be changed in place.
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "neuroae has no second derivatives: gradients of create_graph=True, or from within torch.func, cannot be "
            "differentiated once more"
        )


def once_differentiable(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Of a ``Function``'s backward pass. PyTorch's own is silent where no incoming gradient has a derivative, and in
    nested transforms of ``torch.func``."""

    @functools.wraps(backward)
    def refusing(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return results
        # A pass that is asked for certain gradients visits only what leads to them. A transform counts on its own
        # tensors alone, and would return what is recorded besides them.
        outside = () if torch._C._are_functorch_transforms_active() else (RECORDED,)
        present = [tensor for tensor in (*grads, *ctx.saved_tensors, *outside) if tensor is not None]
        return tuple(None if result is None else Refusal.apply(result, *present) for result in results)

    return refusing
