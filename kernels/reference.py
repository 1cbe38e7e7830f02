"""The reference backend: the operations in plain PyTorch, on any device. Tests compare the other backends with it.

Each operation calls its declaration (``ops/``), which refuses unusable arguments, and computes in float64 or exact
float32. Shapes are named as in ``ops/__init__.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from . import ops
from .checks import check_code, check_image_ids, check_images, check_selection
from .float32 import full_float32
from .philox import drop_threshold, philox4x32, split_seed


def project(images: Tensor, atoms: Tensor, stride: int) -> Tensor:
    """Returns the inner products of all patches with all atoms, (B, m_h, m_w, L): float64, rounded to float32."""
    return F.conv2d(images.double(), atoms.double(), stride=stride).permute(0, 2, 3, 1).float().contiguous()


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    """Selects the T largest projections in absolute value (section 2.2, step 1), in ascending order of atoms.

    Ties go to the lower atom.
    """
    ops.select(images, atoms, stride, top_t)
    check_images(images)
    projections = project(images, atoms, stride)
    order = projections.abs().sort(dim=-1, descending=True, stable=True).indices
    atom = order[..., :top_t].sort(dim=-1).values
    return atom.to(torch.int16), projections.gather(-1, atom)


def draw(
    atom: Tensor,
    projection: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    seed: Tensor,
    image_ids: Tensor,
    start: int,
    count: int,
    dropout_p: float,
    quantize: bool,
    signed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Applies dropout (eq. 2) and activation/quantization (eq. 3) for realizations start .. start + count - 1."""
    ops.draw(atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p, quantize, signed)
    check_image_ids(image_ids)
    check_selection(atom, norms.shape[0])
    batch, patches_h, patches_w, top_t = atom.shape
    survives = keep_mask(atom.long(), seed, image_ids, start, count, dropout_p)
    order = survives.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    survives = survives.gather(-1, order)
    index = atom.long().expand_as(order).gather(-1, order)
    a = projection.expand_as(order).gather(-1, order)
    value = activate(a, norms[index], dead_zone[index], quantize, signed)
    shape = (count * batch, patches_h, patches_w, top_t)
    return (
        index.where(survives, index.new_tensor(-1)).to(torch.int16).reshape(shape),
        value.where(survives, value.new_zeros(())).reshape(shape),
        a.where(survives, a.new_zeros(())).reshape(shape),
        survives.sum(-1, dtype=torch.int32).reshape(shape[:-1]),
    )


def keep_mask(atom: Tensor, seed: Tensor, image_ids: Tensor, start: int, count: int, dropout_p: float) -> Tensor:
    """Returns whether each selected atom survives dropout, (count, B, m_h, m_w, T) bool."""
    batch, patches_h, patches_w, _ = atom.shape
    device = atom.device
    patch = torch.arange(patches_h * patches_w, device=device).reshape(1, 1, patches_h, patches_w, 1)
    realization = torch.arange(start, start + count, device=device).reshape(-1, 1, 1, 1, 1)
    image = image_ids.to(device).reshape(1, batch, 1, 1, 1)
    low, high = split_seed(seed.to(device))
    words = philox4x32((atom.unsqueeze(0) // 4, patch, realization, image), (low, high))
    word = words.gather(-1, (atom % 4).expand(words.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return word >= drop_threshold(dropout_p)


def activate(a: Tensor, norm: Tensor, dead_zone: Tensor, quantize: bool, signed: bool) -> Tensor:
    """Returns the coefficients' values (eq. 3). ``signed=False`` takes magnitudes first, like the published code."""
    if not signed:
        a = a.abs()
    return torch.where(a.abs() >= dead_zone, a.sign() * norm, 0.0) if quantize else a


def encode(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Selects and draws one realization of the images. Other backends never write the selection to memory."""
    ops.encode(
        images, atoms, norms, dead_zone, seed, image_ids, stride, top_t, realization, dropout_p, quantize, signed
    )
    atom, projection = select(images, atoms, stride, top_t)
    return draw(atom, projection, norms, dead_zone, seed, image_ids, realization, 1, dropout_p, quantize, signed)


def surrogate_derivative(a: Tensor, norm: Tensor, dead_zone: Tensor, surrogate: str, sigma: float) -> Tensor:
    """Returns the derivative at projection a that replaces the quantizer's (``SURROGATES`` in ``ops/encoder.py``)."""
    if surrogate == "identity":
        return torch.ones_like(a)
    width, height = (sigma, norm) if surrogate == "smooth" else (sigma * norm, 1.0)
    bumps = torch.cosh((a - dead_zone) / width) ** -2 + torch.cosh((a + dead_zone) / width) ** -2
    return height / (2 * sigma) * bumps


def encode_backward(
    grad_value: Tensor,
    index: Tensor,
    projection: Tensor,
    count: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    height: int,
    width: int,
    stride: int,
    num_images: int,
    surrogate: str,
    sigma: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    """Returns the gradient from a code's values to the images through the survivors (section 4).

    This is the gradient of W-NFGA, the white-box near-full gradient approximation.
    """
    ops.encode_backward(
        grad_value, index, projection, count, atoms, norms, dead_zone, height, width, stride, num_images, surrogate,
        sigma, quantize, signed,
    )  # fmt: skip
    check_code(index, count, atoms.shape[0])
    slot = used_atoms(index, count)
    grad = grad_value.double()
    a = projection.double()
    if quantize:
        grad = grad * surrogate_derivative(a, norms.double()[slot], dead_zone.double()[slot], surrogate, sigma)
    if not signed:
        grad = grad * a.sign()
    dense = to_dense(grad, index, count, atoms.shape[0])
    covered_h, covered_w = ops.covered_size(atoms, stride, index.shape[1], index.shape[2])
    rows = F.conv_transpose2d(dense, atoms.double(), stride=stride)
    rows = F.pad(rows, (0, width - covered_w, 0, height - covered_h))
    return rows.reshape(len(rows) // max(num_images, 1), num_images, *rows.shape[1:]).sum(0).float()


def selection_backward(
    grad_code: Tensor,
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    stride: int,
    top_t: int,
    selection_width: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    """Returns the gradient from the entries of the dense code to the images, through membership in the top T."""
    ops.selection_backward(
        grad_code, images, atoms, norms, dead_zone, stride, top_t, selection_width, quantize, signed
    )
    check_images(images)
    projections = F.conv2d(images.double(), atoms.double(), stride=stride).permute(0, 2, 3, 1)
    grad = membership_gradient(
        projections, grad_code.double(), norms.double(), dead_zone.double(), top_t, selection_width, quantize, signed
    )
    rows = F.conv_transpose2d(grad.permute(0, 3, 1, 2), atoms.double(), stride=stride)
    margin_h, margin_w = images.shape[2] - rows.shape[2], images.shape[3] - rows.shape[3]
    return F.pad(rows, (0, margin_w, 0, margin_h)).float().contiguous()


def membership_gradient(
    projections: Tensor,
    grad_code: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    top_t: int,
    width: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    """Returns the gradient from the code sign(a) * norm * s((|a| - c) / width) to the projections a.

    s is the logistic function. The cut c is halfway between the T-th magnitude and the next one. It moves so that the
    sum of s over the patch stays constant: what one atom gains, others lose. Atoms in the dead zone do not take part.
    With T = L there is no cut; c is then the edge of each atom's dead zone, which does not move.

    Args:
        projections: a, (..., L).
        grad_code: (..., L), the gradient to the code.

    Returns:
        (..., L).
    """
    magnitudes = projections.abs()
    selects_all = top_t == projections.shape[-1]
    if selects_all and not quantize:
        return torch.zeros_like(projections)
    if selects_all:
        cut = dead_zone
    else:
        largest = magnitudes.topk(top_t + 1, dim=-1).values
        cut = (largest[..., top_t - 1 : top_t] + largest[..., top_t:]) / 2
    distance = (magnitudes - cut) / width
    closeness = torch.sigmoid(distance) * torch.sigmoid(-distance)
    if quantize and not selects_all:
        closeness = torch.where(magnitudes >= dead_zone, closeness, 0)
    signs = projections.sign()
    grad = closeness * (norms if quantize else magnitudes) * grad_code
    if signed:
        grad = grad * signs
    if not selects_all:
        total = closeness.sum(-1, keepdim=True)
        grad = grad - closeness * torch.where(total > 0, grad.sum(-1, keepdim=True) / total, 0)
    return signs * grad / width


def used_atoms(index: Tensor, count: Tensor) -> Tensor:
    """Returns the atoms of a code's survivors as int64, and 0 in unused slots, whatever these hold."""
    return index.where(ops.used_slots(count, index.shape[-1]), index.new_zeros(())).long()


def to_dense(value: Tensor, index: Tensor, count: Tensor, num_atoms: int) -> Tensor:
    """Returns a code as a dense tensor, (rows, L, m_h, m_w), differentiable in ``value``. Ignores unused slots."""
    rows, patches_h, patches_w, num_slots = index.shape
    dense = value.new_zeros(rows, patches_h, patches_w, num_atoms)
    used = ops.used_slots(count, num_slots)
    atoms, values = index.where(used, index.new_zeros(())), value.where(used, value.new_zeros(()))
    return dense.scatter_add(-1, atoms.long(), values).permute(0, 3, 1, 2)


def conv_transpose(
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    relu: bool,
) -> Tensor:
    """Computes the transposed convolution of the dense code."""
    output = ops.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding, relu)
    check_code(index, count, weight.shape[0])
    dense = to_dense(value, index, count, weight.shape[0])
    with full_precision(weight.device):
        result = F.conv_transpose2d(
            dense, weight.float(), None if bias is None else bias.float(), stride, padding, output_padding
        )
    return output.copy_(result.relu() if relu else result)


def conv_transpose_backward_value(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    """Returns the gradient to the code's values: the gradient to the dense code, read at the survivors."""
    ops.conv_transpose_backward_value(grad_output, output, index, count, weight, stride, padding)
    check_code(index, count, weight.shape[0])
    grad = unambiguous(relu_gradient(grad_output, output).float())
    with full_precision(weight.device):
        dense = F.conv2d(grad, weight.float(), stride=stride, padding=padding)
    dense = dense[..., : index.shape[1], : index.shape[2]].permute(0, 2, 3, 1)
    grad_value = dense.gather(-1, used_atoms(index, count))
    return grad_value.where(ops.used_slots(count, index.shape[-1]), grad_value.new_zeros(()))


def unambiguous(maps: Tensor) -> Tensor:
    """Returns the feature maps in a memory layout that is not contiguous and channels_last at once.

    Maps of one channel can be both. oneDNN (in PyTorch 2.14) reads such maps wrongly, and beyond their end, when the
    convolution's stride is (1, 2).
    """
    return maps.clone(memory_format=torch.contiguous_format) if maps.shape[1] == 1 else maps


def conv_transpose_backward_weight(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> tuple[Tensor, Tensor]:
    """Returns the gradients to weight and bias, with the dense code as input."""
    grad_weight, _ = ops.conv_transpose_backward_weight(
        grad_output, output, index, value, count, weight, stride, padding
    )
    grad = unambiguous(relu_gradient(grad_output, output).float())
    check_code(index, count, weight.shape[0])
    dense = to_dense(value, index, count, weight.shape[0])
    with full_precision(weight.device):
        grad_weight.copy_(conv2d_weight(grad, weight.shape, dense, stride, padding))
    return grad_weight, grad.sum((0, 2, 3))


def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Computes the transposed convolution of a dense tensor with PyTorch."""
    output = ops.dense_conv_transpose(input, weight, bias, relu)
    with full_precision(input.device):
        result = F.conv_transpose2d(input.float(), weight, bias)
    return output.copy_(result.relu() if relu else result)


def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    """Returns the gradient to the input, by PyTorch's convolution."""
    grad_input = ops.dense_conv_transpose_backward_input(grad_output, output, weight)
    with full_precision(grad_output.device):
        return grad_input.copy_(F.conv2d(relu_gradient(grad_output, output).float(), weight))


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients to weight and bias, by PyTorch's convolution."""
    grad_weight, _ = ops.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad = relu_gradient(grad_output, output).float()
    with full_precision(grad.device):
        grad_weight.copy_(conv2d_weight(grad, grad_weight.shape, input.float()))
    return grad_weight, grad.sum((0, 2, 3))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Makes convolutions compute in float32, whatever autocast and precision settings are on outside."""
    with torch.autocast(device.type, enabled=False), full_float32():
        yield


def relu_gradient(grad_output: Tensor, output: Tensor | None) -> Tensor:
    """Returns the gradient to the input of a fused ReLU with this output; unchanged without a ReLU (None)."""
    return grad_output if output is None else grad_output.where(output > 0, 0)
