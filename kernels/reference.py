"""The operations in plain PyTorch, on any device: the oracle that every engine is held to.

Shapes: B images, R realizations, rows = R * B with row r * B + b, m_h * m_w patches an image (numbered i * m_w + j),
L atoms, T coefficients kept a patch. A code has room for T survivors a patch; slots are filled from the front in
ascending order of atoms, and an unused slot has index -1, value 0 and projection 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from . import conv_shapes, shapes
from .float32 import full_float32
from .philox import drop_threshold, philox4x32, split_seed


def project(images: Tensor, atoms: Tensor, stride: int) -> Tensor:
    """Inner products of every patch with every atom, (B, m_h, m_w, L): float64, rounded once to float32."""
    return F.conv2d(images.double(), atoms.double(), stride=stride).permute(0, 2, 3, 1).float().contiguous()


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    """Top T (section 2.2, step 1): the largest in absolute value, ties to the lower atom, ascending atoms."""
    shapes.select(images, atoms, stride, top_t)
    shapes.check_images(images)
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
    """Dropout (eq. 2) and activation/quantization (eq. 3) for realizations start .. start + count - 1."""
    shapes.draw(atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p)
    shapes.check_image_ids(image_ids)
    shapes.check_selected(atom, norms.shape[0])
    batch, patches_h, patches_w, top_t = atom.shape
    kept = keep_mask(atom.long(), seed, image_ids, start, count, dropout_p)
    order = kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    kept = kept.gather(-1, order)
    index = atom.long().expand_as(order).gather(-1, order)
    a = projection.expand_as(order).gather(-1, order)
    value = activate(a, norms[index], dead_zone[index], quantize, signed)
    shape = (count * batch, patches_h, patches_w, top_t)
    return (
        index.where(kept, index.new_tensor(-1)).to(torch.int16).reshape(shape),
        value.where(kept, value.new_zeros(())).reshape(shape),
        a.where(kept, a.new_zeros(())).reshape(shape),
        kept.sum(-1, dtype=torch.int32).reshape(shape[:-1]),
    )


def keep_mask(atom: Tensor, seed: Tensor, image_ids: Tensor, start: int, count: int, dropout_p: float) -> Tensor:
    """Which of the selected atoms survive: (count, B, m_h, m_w, T) bool."""
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
    """Eq. 3. ``signed=False`` takes the magnitude first, as the published code did."""
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
    """The whole encoder for one realization; the fused engines never write the selection to memory."""
    atom, projection = select(images, atoms, stride, top_t)
    return draw(atom, projection, norms, dead_zone, seed, image_ids, realization, 1, dropout_p, quantize, signed)


def surrogate_derivative(a: Tensor, norm: Tensor, dead_zone: Tensor, surrogate: str, sigma: float) -> Tensor:
    """Derivative of the quantizer's stand-in at projection a (eq. 9; see surrogates.py)."""
    if surrogate == "identity":
        return torch.ones_like(a)
    width, height = (sigma, norm) if surrogate == "smooth" else (sigma * norm, 1.0)
    bumps = torch.cosh((a - dead_zone) / width) ** -2 + torch.cosh((a + dead_zone) / width) ** -2
    return height / (2 * sigma) * bumps


def encode_backward(
    grad_value: Tensor,
    index: Tensor,
    projection: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    height: int,
    width: int,
    stride: int,
    images: int,
    surrogate: str,
    sigma: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    """W-NFGA (section 4): gradient to the image through the survivors only, those in the dead zone included.

    Row k goes to image k % images: with ``images`` = rows every realization gets a gradient of its own, with
    ``images`` = B they are summed. Returns (images, C, height, width) float32.
    """
    shapes.encode_backward(
        grad_value, index, projection, atoms, norms, dead_zone, height, width, stride, images, surrogate, sigma
    )
    slot = index.long().clamp_min(0)
    grad = grad_value.double()
    a = projection.double()
    if quantize:
        grad = grad * surrogate_derivative(a, norms.double()[slot], dead_zone.double()[slot], surrogate, sigma)
    if not signed:
        grad = grad * a.sign()
    grad = grad.where(index >= 0, grad.new_zeros(()))
    dense = to_dense(grad, index, atoms.shape[0])
    size_h, size_w = shapes.covered(atoms, stride, index.shape[1], index.shape[2])
    rows = F.conv_transpose2d(dense, atoms.double(), stride=stride)
    rows = F.pad(rows, (0, width - size_w, 0, height - size_h))
    return rows.reshape(len(rows) // max(images, 1), images, *rows.shape[1:]).sum(0).float()


def selection_backward(
    grad_code: Tensor,
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    stride: int,
    top_t: int,
    width: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    """Gradient to the image through membership in the top T, from the gradient to every entry of the dense code.

    ``grad_code`` is (B, m_h, m_w, L) float32: entries that dropout removed or that were not selected count as well.
    Returns (B, C, H, W) float32. Pixels that no patch covers get 0.
    """
    shapes.selection_backward(grad_code, images, atoms, norms, dead_zone, stride, top_t, width)
    shapes.check_images(images)
    projections = F.conv2d(images.double(), atoms.double(), stride=stride).permute(0, 2, 3, 1)
    grad = membership_gradient(
        projections, grad_code.double(), norms.double(), dead_zone.double(), top_t, width, quantize, signed
    )
    rows = F.conv_transpose2d(grad.permute(0, 3, 1, 2), atoms.double(), stride=stride)
    missing_h, missing_w = images.shape[2] - rows.shape[2], images.shape[3] - rows.shape[3]
    return F.pad(rows, (0, missing_w, 0, missing_h)).float().contiguous()


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
    """Derivative of sign(a) * norm * s((|a| - c) / width) along ``grad_code``, to the projections a: (..., L).

    s is the logistic function. The cut c starts halfway between the T-th magnitude and the next, and moves so that
    the sum of s over the patch stays: what one atom wins, others lose. Atoms in the dead zone take no part. With
    T = L nothing is cut, and the dead zone of each atom, which does not move, stands in the place of c.
    """
    magnitudes = projections.abs()
    everything = top_t == projections.shape[-1]
    if everything and not quantize:
        return torch.zeros_like(projections)
    if everything:
        cut = dead_zone
    else:
        largest = magnitudes.topk(top_t + 1, dim=-1).values
        cut = (largest[..., top_t - 1 : top_t] + largest[..., top_t:]) / 2
    distance = (magnitudes - cut) / width
    closeness = torch.sigmoid(distance) * torch.sigmoid(-distance)
    if quantize and not everything:
        closeness = torch.where(magnitudes >= dead_zone, closeness, 0)
    signs = projections.sign()
    grad = closeness * (norms if quantize else magnitudes) * grad_code
    if signed:
        grad = grad * signs
    if not everything:
        total = closeness.sum(-1, keepdim=True)
        grad = grad - closeness * torch.where(total > 0, grad.sum(-1, keepdim=True) / total, 0)
    return signs * grad / width


def to_dense(value: Tensor, index: Tensor, atoms: int) -> Tensor:
    """Code to tensor, (rows, L, m_h, m_w). What stands in unused slots adds nothing. Differentiable in value."""
    rows, patches_h, patches_w, _ = index.shape
    dense = value.new_zeros(rows, patches_h, patches_w, atoms)
    used = value.where(index >= 0, value.new_zeros(()))
    return dense.scatter_add(-1, index.long().clamp_min(0), used).permute(0, 3, 1, 2)


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
    """Transposed convolution of a code: weight (L, C_out, k_h, k_w) as in nn.ConvTranspose2d.

    Returns (rows, C_out, H, W) in the weight's dtype, channels_last, accumulated in float32.
    """
    shape = conv_shapes.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding)
    dense = to_dense(value, index, weight.shape[0])
    with full_precision(weight.device):
        result = F.conv_transpose2d(
            dense, weight.float(), None if bias is None else bias.float(), stride, padding, output_padding
        )
    output = torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
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
    """Gradient to the code's values, (rows, m_h, m_w, T) float32; 0 in unused slots.

    ``output`` is given after a fused ReLU: the gradient passes where it is positive.
    """
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    grad = unambiguous(masked(grad_output, output).float())
    with full_precision(weight.device):
        dense = F.conv2d(grad, weight.float(), stride=stride, padding=padding)
    dense = dense[..., : index.shape[1], : index.shape[2]].permute(0, 2, 3, 1)
    picked = dense.gather(-1, index.long().clamp_min(0).contiguous())
    return picked.where(index >= 0, picked.new_zeros(()))


def unambiguous(maps: Tensor) -> Tensor:
    """The maps, in strides that say one thing: those of one channel may be channels_last and contiguous at once.

    From such maps oneDNN (of PyTorch 2.14) reads what is not there, where it strides by 1 down and by 2 across.
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
    """Gradients to weight and bias, both float32; the weight's is channels_last."""
    conv_shapes.check_value(value, index)
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    grad = unambiguous(masked(grad_output, output).float())
    dense = to_dense(value, index, weight.shape[0])
    grad_weight = torch.empty_like(weight, dtype=torch.float32, memory_format=torch.channels_last)
    with full_precision(weight.device):
        grad_weight.copy_(conv2d_weight(grad, weight.shape, dense, stride, padding))
    return grad_weight, grad.sum((0, 2, 3))


def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Transposed convolution of a dense tensor, 3 x 3 with stride 1: weight (C_in, C_out, 3, 3).

    Returns (rows, C_out, H + 2, W + 2) in the input's dtype, channels_last, accumulated in float32.
    """
    shape = conv_shapes.dense_conv_transpose(input, weight, bias)
    with full_precision(input.device):
        result = F.conv_transpose2d(input.float(), weight, bias)
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    return output.copy_(result.relu() if relu else result)


def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    """Gradient to the input, in the gradient's dtype, channels_last. ``output`` as above."""
    shape = conv_shapes.dense_conv_transpose_backward_input(grad_output, output, weight)
    grad = torch.empty(shape, dtype=grad_output.dtype, device=grad_output.device, memory_format=torch.channels_last)
    with full_precision(grad_output.device):
        return grad.copy_(F.conv2d(masked(grad_output, output).float(), weight))


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to weight and bias, both float32; the weight's is channels_last. ``output`` as above."""
    shape = conv_shapes.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad = masked(grad_output, output).float()
    grad_weight = torch.empty(shape, dtype=torch.float32, device=grad.device, memory_format=torch.channels_last)
    with full_precision(grad.device):
        grad_weight.copy_(conv2d_weight(grad, shape, input.float()))
    return grad_weight, grad.sum((0, 2, 3))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Convolutions in float32, whatever autocast and settings are on around them."""
    with torch.autocast(device.type, enabled=False), full_float32():
        yield


def masked(grad_output: Tensor, output: Tensor | None) -> Tensor:
    return grad_output if output is None else grad_output.where(output > 0, 0)
