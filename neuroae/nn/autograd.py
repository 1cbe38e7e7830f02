"""The operations with their gradients: W-NFGA (paper, section 4), the selection's, and transposed convolutions.

A class on codes takes the backend's name first, so that the backward pass runs on the engine of the forward pass. The
surrogate gradients have no derivative of their own: whoever asks for a second derivative gets an error.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..kernels import ops
from ..kernels.reference import unambiguous

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


Code = tuple[Tensor, Tensor, Tensor, Tensor]


def code_backward(ctx: Any, grad_value: Tensor) -> Tensor:
    """Gradient from a code's values to the image tensor that ``remember_code`` saw."""
    index, projection, atoms, norms, dead_zone, _ = ctx.saved_tensors
    return ops.namespace(ctx.backend).encode_backward(
        grad_value.contiguous(), index, projection, atoms, norms, dead_zone, *ctx.backward_arguments
    )


def remember_code(
    ctx: Any, backend: str, output: Code, images: Tensor, tensors: tuple[Tensor, ...], rest: Any
) -> None:
    """``tensors`` are atoms, norms and dead zone; ``rest`` is stride, surrogate, sigma, quantize, signed."""
    index, _, projection, count = output
    ctx.mark_non_differentiable(index, projection, count)
    ctx.set_materialize_grads(False)
    # The images as well: what a derivative of the gradient would depend on.
    ctx.save_for_backward(index, projection, *tensors, images)
    stride, surrogate, sigma, quantize, signed = rest
    ctx.backend = backend
    ctx.backward_arguments = (*images.shape[2:], stride, images.shape[0], surrogate, sigma, quantize, signed)


class Encode(Function):
    """Images to the code of one realization, fused."""

    @staticmethod
    def forward(
        backend: str,
        images: Tensor,
        atoms: Tensor,
        norms: Tensor,
        dead_zone: Tensor,
        seed: Tensor,
        image_ids: Tensor,
        stride: int,
        top_t: int,
        realization: int,
        dropout_p: float,
        quantize: bool,
        signed: bool,
        surrogate: str,
        sigma: float,
    ) -> Code:
        return ops.namespace(backend).encode(
            images, atoms, norms, dead_zone, seed, image_ids, stride, top_t, realization, dropout_p, quantize, signed
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Code) -> None:
        backend, images, atoms, norms, dead_zone, _, _, stride, _, _, _, quantize, signed, surrogate, sigma = inputs
        rest = (stride, surrogate, sigma, quantize, signed)
        remember_code(ctx, backend, output, images, (atoms, norms, dead_zone), rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _index: None, grad_value: Tensor | None, _projection: None, _count: None) -> Any:
        grad = code_backward(ctx, grad_value) if grad_value is not None and ctx.needs_input_grad[1] else None
        return None, grad, *[None] * 13


class Draw(Function):
    """A selection to the codes of several realizations.

    The gradient goes to ``receiver``, which only lends its shape: the selected images (B, C, H, W) get the sum over
    realizations, a tensor of (count * B, C, H, W) gets each realization's gradient in its own row.
    """

    @staticmethod
    def forward(
        backend: str,
        receiver: Tensor,
        atom: Tensor,
        projection: Tensor,
        atoms: Tensor,
        norms: Tensor,
        dead_zone: Tensor,
        seed: Tensor,
        image_ids: Tensor,
        stride: int,
        start: int,
        count: int,
        dropout_p: float,
        quantize: bool,
        signed: bool,
        surrogate: str,
        sigma: float,
    ) -> Code:
        return ops.namespace(backend).draw(
            atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p, quantize, signed
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Code) -> None:
        backend, receiver, _, _, *tensors = inputs[:7]
        rest = (inputs[9], inputs[15], inputs[16], inputs[13], inputs[14])
        remember_code(ctx, backend, output, receiver, tuple(tensors), rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _index: None, grad_value: Tensor | None, _projection: None, _count: None) -> Any:
        grad = code_backward(ctx, grad_value) if grad_value is not None and ctx.needs_input_grad[1] else None
        return None, grad, *[None] * 15


class MembershipSettings(NamedTuple):
    """
    Attributes:
        stride, top_t, quantize, signed: of the encoder.
        width: how far from the cut a projection counts.
        factor: what the gradient is multiplied with.
    """

    stride: int
    top_t: int
    width: float
    quantize: bool
    signed: bool
    factor: float


def membership_gradient(
    backend: str, grad_code: Tensor, images: Tensor, dictionary: Sequence[Tensor], settings: MembershipSettings
) -> Tensor:
    """From the gradient to every entry of the dense code, (B, L, m_h, m_w), to that of the images.

    ``dictionary`` are atoms, norms and dead zone.
    """
    *arguments, factor = settings
    grad = ops.namespace(backend).selection_backward(
        grad_code.permute(0, 2, 3, 1).float().contiguous(), images, *dictionary, *arguments
    )
    return grad * factor


class Membership(Function):
    """Zeros in the shape of the dense code, (rows, L, m_h, m_w), whose gradient goes to images through the top T.

    A code carries them beside its values: whoever uses the code as a dense tensor hands back the gradient to every
    entry, those that were dropped or not selected included. ``receiver`` gets the image gradient as in ``Draw``;
    ``images`` (B, C, H, W) are those that were selected from, without a gradient of their own.
    """

    @staticmethod
    def forward(
        backend: str,
        receiver: Tensor,
        images: Tensor,
        atoms: Tensor,
        norms: Tensor,
        dead_zone: Tensor,
        shape: tuple[int, int, int, int],
        settings: MembershipSettings,
    ) -> Tensor:
        return images.new_zeros(()).expand(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        backend, receiver, images, *dictionary, shape, settings = inputs
        ctx.save_for_backward(images, *dictionary, receiver)
        ctx.backend, ctx.settings = backend, settings
        ctx.realizations, ctx.summed = shape[0] // max(len(images), 1), len(receiver) == len(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_code: Tensor) -> Any:
        images, *dictionary, _ = ctx.saved_tensors
        if ctx.summed:
            grad_code = grad_code.unflatten(0, (ctx.realizations, len(images))).sum(0)
        else:
            images = images.repeat(ctx.realizations, 1, 1, 1)
        grad = membership_gradient(ctx.backend, grad_code, images, dictionary, ctx.settings)
        return None, grad, *[None] * 6


class SmoothClamp(Function):
    """ReLU and a clamp to [0, 1] whose gradient fades outside: 1 / (1 + (d / width)^2), d the distance to [0, 1]."""

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
        outside = (images - images.clamp(0, 1)).float() / ctx.width
        return (grad / (1 + outside.square())).to(grad.dtype), None


class ConvTranspose(Function):
    """Transposed convolution of a code, with ReLU inside when ``relu`` is set.

    ``weight`` and ``bias`` only receive the gradients, in their own dtype; ``cast_weight`` and ``cast_bias`` are what
    is computed with. ``membership`` (see ``Membership``) receives the gradient to every entry of the dense code.
    """

    @staticmethod
    def forward(
        backend: str,
        index: Tensor,
        value: Tensor,
        count: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        cast_weight: Tensor,
        cast_bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        output_padding: tuple[int, int],
        relu: bool,
        membership: Tensor | None,
    ) -> Tensor:
        return ops.namespace(backend).conv_transpose(
            index, value, count, cast_weight, cast_bias, stride, padding, output_padding, relu
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        backend, index, value, count, receiver, _, weight, _, stride, padding, _, relu, _ = inputs
        ctx.backend, ctx.stride, ctx.padding, ctx.dtype = backend, stride, padding, receiver.dtype
        # The receiver as well: what a derivative of the gradient would depend on.
        ctx.save_for_backward(index, value, count, weight, output if relu else None, receiver)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        index, value, count, weight, output, _ = ctx.saved_tensors
        _, _, wants_value, _, wants_weight, wants_bias, *_, wants_membership = ctx.needs_input_grad
        operations = ops.namespace(ctx.backend)
        grad_value = grad_weight = grad_bias = grad_membership = None
        if output is not None and wants_value + (wants_weight or wants_bias) + wants_membership > 1:
            grad_output, output = grad_output.where(output > 0, 0), None
        if wants_membership:
            grad_membership = dense_code_gradient(
                grad_output if output is None else grad_output.where(output > 0, 0),
                weight,
                ctx.stride,
                ctx.padding,
                index.shape[1:3],
            )
        if wants_value:
            grad_value = operations.conv_transpose_backward_value(
                grad_output, output, index, count, weight, ctx.stride, ctx.padding
            )
        if wants_weight or wants_bias:
            grad_weight, grad_bias = operations.conv_transpose_backward_weight(
                grad_output, output, index, value, count, weight, ctx.stride, ctx.padding
            )
            grad_weight, grad_bias = grad_weight.to(ctx.dtype), grad_bias.to(ctx.dtype)
        return (
            None,
            None,
            grad_value,
            None,
            grad_weight if wants_weight else None,
            grad_bias if wants_bias else None,
            *[None] * 6,
            grad_membership,
        )


def dense_code_gradient(
    grad_output: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], patches: Sequence[int]
) -> Tensor:
    """Gradient to every entry of the dense code of a transposed convolution: (rows, L, m_h, m_w), the weight's dtype.

    ``grad_output`` (rows, C_out, H, W) is that before the ReLU, ``weight`` (L, C_out, k_h, k_w).
    """
    with torch.autocast(weight.device.type, enabled=False):
        dense = F.conv2d(unambiguous(grad_output), weight, stride=tuple(stride), padding=tuple(padding))
    return dense[..., : patches[0], : patches[1]]


class DenseConvTranspose(Function):
    """Transposed convolution of a dense tensor, 3 x 3 with stride 1, with ReLU inside when ``relu`` is set."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        return ops.namespace("auto").dense_conv_transpose(input, weight, bias, relu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, _, relu = inputs
        ctx.save_for_backward(input, weight, output if relu else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight, output = ctx.saved_tensors
        wants_input, wants_weight, wants_bias, _ = ctx.needs_input_grad
        operations = ops.namespace("auto")
        grad_input = grad_weight = grad_bias = None
        if wants_input:
            grad_input = operations.dense_conv_transpose_backward_input(grad_output, output, weight)
        if wants_weight or wants_bias:
            grad_weight, grad_bias = operations.dense_conv_transpose_backward_weight(grad_output, output, input)
        return grad_input, grad_weight if wants_weight else None, grad_bias if wants_bias else None, None
