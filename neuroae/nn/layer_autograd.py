"""The decoder's operations with their gradients, as autograd functions: transposed convolutions and the clamp."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..kernels import namespace
from ..kernels.reference import unambiguous
from .autograd import once_differentiable


class SmoothClamp(Function):
    """ReLU and a clamp to [0, 1]. At distance d outside [0, 1] the derivative is 1 / (1 + (d / width)^2)."""

    @staticmethod
    def forward(images: Tensor, width: float) -> Tensor:
        return images.relu().clamp(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.width = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (images,) = ctx.saved_tensors
        distance = (images - images.clamp(0, 1)).float() / ctx.width
        return (grad / (1 + distance.square())).to(grad.dtype), None


class LayerSettings(NamedTuple):
    """Settings of a transposed convolution for ``ConvTranspose``.

    Attributes:
        backend: "auto", "reference", "cpu" or "triton".
        stride: As in ``nn.ConvTranspose2d``.
        padding: As in ``nn.ConvTranspose2d``.
        output_padding: As in ``nn.ConvTranspose2d``.
        relu: Whether ReLU follows in the same pass.
    """

    backend: str
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    relu: bool


class ConvTranspose(Function):
    """Transposed convolution of a code.

    ``cast_weight`` and ``cast_bias`` are used in the computation. ``weight`` and ``bias`` only receive the gradients,
    in their own dtype. ``membership`` (see ``Membership``) receives the gradient to all entries of the dense code.
    """

    @staticmethod
    def forward(
        index: Tensor,
        value: Tensor,
        count: Tensor,
        membership: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        cast_weight: Tensor,
        cast_bias: Tensor | None,
        settings: LayerSettings,
    ) -> Tensor:
        return namespace(settings.backend).conv_transpose(
            index,
            value,
            count,
            cast_weight,
            cast_bias,
            settings.stride,
            settings.padding,
            settings.output_padding,
            settings.relu,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        index, value, count, _, receiver, _, weight, _, settings = inputs
        ctx.settings, ctx.dtype = settings, receiver.dtype
        # The receiver as well, by which a second derivative must be refused.
        ctx.save_for_backward(index, value, count, weight, output if settings.relu else None, receiver)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        index, value, count, weight, output, _ = ctx.saved_tensors
        _, needs_value, _, needs_membership, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        operations, geometry = namespace(ctx.settings.backend), (ctx.settings.stride, ctx.settings.padding)
        grad_value = grad_membership = grad_weight = grad_bias = None
        if output is not None and needs_value + needs_membership + (needs_weight or needs_bias) > 1:
            grad_output, output = grad_output.where(output > 0, 0), None
        if needs_membership:
            grad_dense = grad_output if output is None else grad_output.where(output > 0, 0)
            grad_membership = dense_code_gradient(grad_dense, weight, *geometry, index.shape[1:3])
        if needs_value:
            grad_value = operations.conv_transpose_backward_value(grad_output, output, index, count, weight, *geometry)
        if needs_weight or needs_bias:
            grad_weight, grad_bias = operations.conv_transpose_backward_weight(
                grad_output, output, index, value, count, weight, *geometry
            )
            grad_weight = grad_weight.to(ctx.dtype) if needs_weight else None
            grad_bias = grad_bias.to(ctx.dtype) if needs_bias else None
        return None, grad_value, None, grad_membership, grad_weight, grad_bias, None, None, None


def dense_code_gradient(
    grad_output: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], patches: Sequence[int]
) -> Tensor:
    """Returns the gradient from a transposed convolution to all entries of its dense code.

    Args:
        grad_output: (rows, C_out, H, W), the gradient to the output before a ReLU.
        weight: (L, C_out, k_h, k_w).
        patches: m_h and m_w.

    Returns:
        (rows, L, m_h, m_w) in the weight's dtype.
    """
    with torch.autocast(weight.device.type, enabled=False):
        dense = F.conv2d(unambiguous(grad_output), weight, stride=tuple(stride), padding=tuple(padding))
    return dense[..., : patches[0], : patches[1]]


class DenseConvTranspose(Function):
    """Transposed convolution of a dense tensor, 3 x 3 with stride 1, with ReLU in the same pass if ``relu`` is set."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        return namespace("auto").dense_conv_transpose(input, weight, bias, relu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, _, relu = inputs
        ctx.save_for_backward(input, weight, output if relu else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight, output = ctx.saved_tensors
        needs_input, needs_weight, needs_bias, _ = ctx.needs_input_grad
        operations = namespace("auto")
        grad_input = grad_weight = grad_bias = None
        if needs_input:
            grad_input = operations.dense_conv_transpose_backward_input(grad_output, output, weight)
        if needs_weight or needs_bias:
            grad_weight, grad_bias = operations.dense_conv_transpose_backward_weight(grad_output, output, input)
        return grad_input, grad_weight if needs_weight else None, grad_bias if needs_bias else None, None
