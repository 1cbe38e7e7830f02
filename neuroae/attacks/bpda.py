"""Backward pass differentiable approximation (BPDA; Athalye et al., 2018, arXiv 1802.00420), and other stand-ins.

Each wrapper here computes the exact forward pass of the module that it holds, or a smooth form of it, and gives it a
gradient that an attack can use. Attacks are crafted on the wrapper and judged on the model itself.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from ..utils.modules import Wrapper

SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny
Backward = str | nn.Module | Callable[[Tensor], Tensor]


class Substitute(Function):
    """Passes a value on, and its gradient to a stand-in of the same shape."""

    @staticmethod
    def forward(value: Tensor, stand_in: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, grad.to(ctx.dtype)


def substitute(value: Tensor, stand_in: Tensor) -> Tensor:
    """Returns ``value`` (floating point) with the gradient of ``stand_in``.

    A stand-in of another height and width is resized; its other dimensions must be those of the value.
    """
    if stand_in.shape != value.shape:
        stand_in = resized(stand_in, value.shape)
    return Substitute.apply(value.detach(), stand_in)


def resized(images: Tensor, shape: torch.Size) -> Tensor:
    """Returns images (B, C, H, W) in another height and width, and of one channel in as many as are asked for.

    Raises:
        ValueError: They differ in more than height and width.
    """
    if images.dim() != 4 or len(shape) != 4 or images.shape[:2] != shape[:2]:
        raise ValueError(f"the stand-in has shape {tuple(images.shape)}, expected {tuple(shape)} but for its size")
    return F.interpolate(images, shape[2:], mode="bilinear", align_corners=False, antialias=shape[2] < images.shape[2])


class BPDA(Wrapper):
    """A module with its exact forward pass and the gradient of a stand-in."""

    def __init__(self, module: nn.Module, backward: Backward) -> None:
        super().__init__(module)
        self.backward_of = backward

    def forward(self, inputs: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Returns ``module(inputs, ...)``; the gradient goes to ``inputs`` through the stand-in."""
        with torch.no_grad():
            value = self.model(inputs, *arguments, **options)
        stand_in = inputs if self.backward_of == "identity" else self.backward_of(inputs)  # type: ignore[operator]
        return substitute(value, stand_in)


def bpda(module: nn.Module, backward: Backward = "identity") -> BPDA:
    """Returns the module with the gradient of a stand-in: put it in the module's place, and attack the model.

    Args:
        module: The part without a useful gradient, for example a JPEG front end. Its first argument is a tensor.
        backward: Whose gradient is taken: "identity", or a callable or module from the same tensor to one of the
            output's shape. An image-like result of another height and width is resized.

    Raises:
        ValueError: ``backward`` is another word.
        TypeError: ``module`` is no module, or ``backward`` cannot be called.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}, expected a torch.nn.Module")
    if isinstance(backward, str) and backward != "identity":
        raise ValueError(f"backward is {backward!r}, expected 'identity', a callable or a module")
    if not isinstance(backward, str) and not callable(backward):
        raise TypeError(f"backward is a {type(backward).__name__}, expected 'identity', a callable or a module")
    return BPDA(module, backward)


class LogProbabilities(Wrapper):
    """A model that answers with probabilities, with their logarithm in their place: losses are made for logits."""

    def forward(self, images: Tensor, **draws: Any) -> Tensor:
        """Returns log-probabilities (B, classes)."""
        return self.model(images, **draws).clamp(min=SMALLEST_PROBABILITY).log()


class Smoothed(Wrapper):
    """A model at images with Gaussian noise: its mean gradient is that of the model smoothed by the noise.

    Average many realizations (EOT). The noise follows torch's generator, which attacks seed for each realization.
    """

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__(model)
        self.sigma = sigma

    def forward(self, images: Tensor, **draws: Any) -> Tensor:
        """Returns logits (B, classes) at ``images`` plus noise of standard deviation ``sigma``, clipped to [0, 1]."""
        noisy = (images + self.sigma * torch.randn_like(images)).clamp(0, 1)
        return self.model(substitute(noisy, images), **draws)
