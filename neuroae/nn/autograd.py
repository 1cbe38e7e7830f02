"""The encoder's operations with their gradients, as autograd functions.

- ``Encode`` and ``Draw``: the gradient goes from a code's values to the images, through the survivors. This is the
  gradient of W-NFGA, the white-box near-full gradient approximation (paper, section 4).
- ``Membership``: the gradient goes from the dense code to the images, through the top T.

The functions take a settings object, whose ``backend`` computes both passes. The surrogate gradients have no
derivatives, so a second derivative is an error. The decoder's operations are in ``layer_autograd``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from ..kernels import namespace
from ..kernels.ops import Code

# An origin that makes autograd record ``Refusal`` even if no incoming gradient requires grad, as after a linear map.
RECORDED = torch.empty(0, requires_grad=True)


class Refusal(Function):
    """Returns the gradient unchanged. Differentiating it by ``origins``, the tensors it depends on, is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *origins: Tensor) -> Tensor:
        # A view could not be changed in place.
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
    """Makes second derivatives of a ``Function`` an error; decorates its backward pass.

    PyTorch's decorator of this name raises nothing if no incoming gradient requires grad, or in nested transforms of
    ``torch.func``.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return results
        # All saved tensors are origins: a backward pass for certain inputs visits only the nodes that lead to them.
        # RECORDED is left out under a transform of torch.func: a result that depends on an outside tensor would leave
        # the transform with a gradient function.
        recorded = () if torch._C._are_functorch_transforms_active() else (RECORDED,)
        origins = [tensor for tensor in (*grads, *ctx.saved_tensors, *recorded) if tensor is not None]
        return tuple(None if result is None else Refusal.apply(result, *origins) for result in results)

    return wrapper


class CodeSettings(NamedTuple):
    """Settings of an encoder for ``Encode`` and ``Draw``.

    Attributes:
        backend: "auto", "reference", "cpu" or "triton".
        stride: Pixels between patches.
        top_t: T, the coefficients selected in each patch.
        dropout_p: Probability that dropout removes a coefficient.
        quantize: Whether values are quantized.
        signed: Whether values have the sign of their projections.
        surrogate: Substitute for the quantizer's derivative, one of ``SURROGATES``.
        sigma: Width of the smooth surrogates.
    """

    backend: str
    stride: int
    top_t: int
    dropout_p: float
    quantize: bool
    signed: bool
    surrogate: str
    sigma: float


def value_gradient(
    settings: CodeSettings,
    grad_value: Tensor,
    index: Tensor,
    projection: Tensor,
    count: Tensor,
    dictionary: Sequence[Tensor],
    images: Tensor,
) -> Tensor:
    """Returns the gradient from a code's values to the images, through the survivors.

    Args:
        grad_value: (rows, m_h, m_w, T), like ``index`` and ``projection``.
        dictionary: Atoms, norms and dead zone.
        images: (B, C, H, W) for the sum over realizations, or (rows, C, H, W) for a gradient of each realization.
            Only the shape matters.
    """
    return namespace(settings.backend).encode_backward(
        grad_value.contiguous(),
        index,
        projection,
        count,
        *dictionary,
        *images.shape[2:],
        settings.stride,
        images.shape[0],
        settings.surrogate,
        settings.sigma,
        settings.quantize,
        settings.signed,
    )


def save_code(ctx: Any, settings: CodeSettings, code: Code, dictionary: Sequence[Tensor], images: Tensor) -> None:
    """Saves the tensors for ``code_backward``, and the images, by which a second derivative must be refused."""
    index, _, projection, count = code
    ctx.mark_non_differentiable(index, projection, count)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(index, projection, count, *dictionary, images)
    ctx.settings = settings


def code_backward(ctx: Any, grad_value: Tensor | None) -> Tensor | None:
    """Returns the gradient to the first input, the images; None if there is none."""
    if grad_value is None or not ctx.needs_input_grad[0]:
        return None
    index, projection, count, *dictionary, images = ctx.saved_tensors
    return value_gradient(ctx.settings, grad_value, index, projection, count, dictionary, images)


class Encode(Function):
    """Encodes images in one realization, in one pass."""

    @staticmethod
    def forward(
        images: Tensor,
        atoms: Tensor,
        norms: Tensor,
        dead_zone: Tensor,
        seed: Tensor,
        image_ids: Tensor,
        realization: int,
        settings: CodeSettings,
    ) -> Code:
        return namespace(settings.backend).encode(
            images,
            atoms,
            norms,
            dead_zone,
            seed,
            image_ids,
            settings.stride,
            settings.top_t,
            realization,
            settings.dropout_p,
            settings.quantize,
            settings.signed,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Code) -> None:
        images, *dictionary, _, _, _, settings = inputs
        save_code(ctx, settings, output, dictionary, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _index: None, grad_value: Tensor | None, _projection: None, _count: None) -> Any:
        return code_backward(ctx, grad_value), *[None] * 7


class Draw(Function):
    """Draws realizations of a selection.

    ``receiver`` gets the gradient; its values do not matter. If it is the images (B, C, H, W), they get the sum over
    realizations. A tensor of (count * B, C, H, W) gets each realization's gradient in its own row.
    """

    @staticmethod
    def forward(
        receiver: Tensor,
        atoms: Tensor,
        norms: Tensor,
        dead_zone: Tensor,
        seed: Tensor,
        image_ids: Tensor,
        atom: Tensor,
        projection: Tensor,
        start: int,
        count: int,
        settings: CodeSettings,
    ) -> Code:
        return namespace(settings.backend).draw(
            atom,
            projection,
            norms,
            dead_zone,
            seed,
            image_ids,
            start,
            count,
            settings.dropout_p,
            settings.quantize,
            settings.signed,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Code) -> None:
        receiver, *dictionary = inputs[:4]
        save_code(ctx, inputs[-1], output, dictionary, receiver)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _index: None, grad_value: Tensor | None, _projection: None, _count: None) -> Any:
        return code_backward(ctx, grad_value), *[None] * 10


class MembershipSettings(NamedTuple):
    """Settings of an encoder for ``Membership``.

    Attributes:
        backend: "auto", "reference", "cpu" or "triton".
        stride: Pixels between patches.
        top_t: T, the coefficients selected in each patch.
        selection_width: How far from the cut a projection counts.
        quantize: Whether values are quantized.
        signed: Whether values have the sign of their projections.
        factor: The number that the gradient is multiplied by.
    """

    backend: str
    stride: int
    top_t: int
    selection_width: float
    quantize: bool
    signed: bool
    factor: float


def membership_gradient(
    settings: MembershipSettings, grad_code: Tensor, images: Tensor, dictionary: Sequence[Tensor]
) -> Tensor:
    """Returns the gradient to the images (B, C, H, W) through the top T.

    Args:
        grad_code: (B, L, m_h, m_w), the gradient to all entries of the dense code.
        dictionary: Atoms, norms and dead zone.
    """
    gradient = namespace(settings.backend).selection_backward(
        grad_code.permute(0, 2, 3, 1).float().contiguous(),
        images,
        *dictionary,
        settings.stride,
        settings.top_t,
        settings.selection_width,
        settings.quantize,
        settings.signed,
    )
    return gradient * settings.factor


class Membership(Function):
    """Zeros in the shape of the dense code, (rows, L, m_h, m_w), whose gradient goes to the images through the top T.

    A code carries these zeros beside its values. A layer that uses the code as a dense tensor returns the gradient to
    all entries, including dropped and unselected ones. ``receiver`` gets the image gradient as in ``Draw``. ``images``
    (B, C, H, W) are the encoded images, and get no gradient.
    """

    @staticmethod
    def forward(
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
        receiver, images, *dictionary, shape, settings = inputs
        ctx.save_for_backward(images, *dictionary, receiver)
        ctx.settings = settings
        ctx.realizations, ctx.adds_realizations = shape[0] // max(len(images), 1), len(receiver) == len(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_code: Tensor) -> Any:
        images, *dictionary, _ = ctx.saved_tensors
        if ctx.adds_realizations:
            grad_code = grad_code.unflatten(0, (ctx.realizations, len(images))).sum(0)
        else:
            images = images.repeat(ctx.realizations, 1, 1, 1)
        return membership_gradient(ctx.settings, grad_code, images, dictionary), *[None] * 6
