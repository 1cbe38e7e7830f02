"""The reference, compared with a dense formulation that autograd differentiates.

The dense encoder is the published recipe: convolution, top T by masking, a dropout mask, and a quantizer with the
value of the hard quantizer and the gradient of a differentiable surrogate.
"""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cut_rows
import oracle
from dictionaries import unit_atoms
from neuroae.kernels import reference
from strategies import Case, Code, poisoned, random_code

SIGMA = 0.25


@pytest.fixture(params=["quantized", "projections"])
def quantize(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "quantized")


@pytest.fixture(params=["signed", "unsigned"])
def signed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "signed")


@pytest.fixture
def case(quantize: bool, signed: bool) -> Case:
    """Two rectangular images with a row and columns without patches; half of the coefficients are dropped."""
    atoms = unit_atoms(24, 3, 4)
    norms = atoms.abs().sum((1, 2, 3))
    return Case(
        torch.rand(2, 3, 9, 14),
        atoms,
        norms,
        0.1 * norms,
        stride=3,
        top_t=9,
        dropout_p=0.5,
        quantize=quantize,
        signed=signed,
        seed=torch.tensor(-77),
        image_ids=torch.tensor([5, 2**32 - 1]),
        start=2,
        count=3,
    )


def test_the_case_covers_all_branches(case: Case) -> None:
    """It has survivors in the dead zone, negative coefficients, unused slots, and pixels without patches."""
    index, value, projection, count = draw(case)
    if case.quantize:
        assert ((index >= 0) & (value == 0)).any()
    assert (projection < 0).any()
    assert (count < case.top_t).any()
    grad = reference.encode_backward(*backward_arguments(case, index, projection, count, torch.ones_like(value)))
    assert grad[..., 7:, :].eq(0).all()
    assert grad[..., 13:].eq(0).all()
    assert grad[..., :7, :13].ne(0).any(dim=(0, 1)).all()


def test_code(case: Case) -> None:
    index, value, _, count = draw(case)
    dense = reference.to_dense(value, index, count, len(case.atoms))
    oracle.assert_close(dense, dense_code(case.images, case, "identity").float(), "code")


def test_projections_of_survivors(case: Case) -> None:
    index, _, projection, count = draw(case)
    a = F.conv2d(case.images.double(), case.atoms.double(), stride=case.stride)
    survivors, dense = (
        reference.to_dense(values, index, count, len(case.atoms))
        for values in (torch.ones_like(projection), projection)
    )
    oracle.assert_close(dense, (survivors * a.repeat(case.count, 1, 1, 1)).float(), "projection")


@pytest.mark.parametrize("surrogate", ["identity", "smooth", "smooth-normalized"])
@pytest.mark.parametrize("separate", [False, True], ids=["summed", "one gradient a realization"])
def test_image_gradient(case: Case, surrogate: str, separate: bool) -> None:
    index, _, projection, count = draw(case)
    images = case.images.repeat(case.count, 1, 1, 1).double().requires_grad_()
    dense = dense_code(images, case, surrogate)
    grad = torch.randn(dense.shape)
    (expected,) = torch.autograd.grad(dense, images, grad.double())
    if not separate:
        expected = expected.unflatten(0, (case.count, -1)).sum(0)
    grad_value = grad.permute(0, 2, 3, 1).gather(-1, index.long().clamp_min(0))
    arguments = backward_arguments(case, *poisoned(index, projection, count), grad_value, surrogate, len(expected))
    oracle.assert_close(reference.encode_backward(*arguments), expected.float(), "image gradient")


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding"),
    [
        pytest.param((4, 4), (2, 2), (0, 0), (0, 0), id="CIFAR-10"),
        pytest.param((3, 2), (3, 2), (1, 0), (2, 1), id="rectangular"),
    ],
)
def test_transposed_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    bias: bool,
    relu: bool,
) -> None:
    index, value, count = random_code((4, 5, 6, 8), 30, torch.Generator().manual_seed(1))
    weight, numbers = torch.randn(30, 7, *kernel), torch.randn(7)
    leaves = [tensor.double().requires_grad_() for tensor in (value, weight, numbers)]
    dense = reference.to_dense(leaves[0], index, count, 30)
    expected = F.conv_transpose2d(dense, leaves[1], leaves[2] * bias, stride, padding, output_padding)
    expected = expected.relu() if relu else expected
    grad = torch.randn(expected.shape)
    expected_grads = [gradient.float() for gradient in torch.autograd.grad(expected, leaves, grad.double())]

    code, geometry = poisoned(index, value, count), (list(stride), list(padding))
    output = reference.conv_transpose(*code, weight, numbers if bias else None, *geometry, list(output_padding), relu)
    oracle.assert_close(output, expected.detach().float(), "output")
    after_relu = output if relu else None
    grad_value = reference.conv_transpose_backward_value(grad, after_relu, code[0], count, weight, *geometry)
    grad_weight, grad_bias = reference.conv_transpose_backward_weight(grad, after_relu, *code, weight, *geometry)
    oracle.assert_close(grad_value, expected_grads[0].where(index >= 0, 0.0), "gradient to the values")
    oracle.assert_close(grad_weight, expected_grads[1], "gradient to the weight")
    if bias:
        oracle.assert_close(grad_bias, expected_grads[2], "gradient to the bias")


def test_ties_go_to_the_lower_atom() -> None:
    atoms = torch.zeros(5, 1, 1, 1)
    atoms[:, 0, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    atom, projection = reference.select(torch.full((1, 1, 1, 1), 0.5), atoms, 1, 3)
    assert atom.flatten().tolist() == [0, 1, 2]
    assert projection.flatten().tolist() == [0.5, -0.5, 0.5]


@pytest.mark.parametrize("atoms", cut_rows.ATOMS)
@pytest.mark.parametrize("kind", cut_rows.KINDS)
def test_the_cut_between_the_closest_magnitudes(kind: str, atoms: int) -> None:
    rows = cut_rows.cut_rows(kind, atoms)
    for top_t in cut_rows.counts(atoms):
        cut_rows.assert_cut(reference.select(*cut_rows.select_arguments(rows, top_t)), rows, top_t)


def test_the_dead_zone_is_open() -> None:
    """|a| = beta * epsilon * norm is outside the dead zone (eq. 3)."""
    a = torch.tensor([0.25, -0.25, 0.2499])
    value = reference.activate(a, torch.tensor(2.0), torch.tensor(0.25), quantize=True, signed=True)
    assert value.tolist() == [2.0, -2.0, 0.0]


def draw(case: Case) -> Code:
    return reference.draw(*case.draw_arguments(reference.select(*case.select_arguments())))


def backward_arguments(
    case: Case,
    index: Tensor,
    projection: Tensor,
    count: Tensor,
    grad: Tensor,
    surrogate: str = "identity",
    num_images: int = 2,
) -> tuple[Any, ...]:
    levels = (case.atoms, case.norms, case.dead_zone, *case.images.shape[2:], case.stride)
    return grad, index, projection, count, *levels, num_images, surrogate, SIGMA, case.quantize, case.signed


def dense_code(images: Tensor, case: Case, surrogate: str) -> Tensor:
    """Returns (count * B, L, m_h, m_w) float64, from one batch for all realizations or from a row for each."""
    if len(images) == len(case.images):
        images = images.repeat(case.count, 1, 1, 1)
    a = F.conv2d(images.double(), case.atoms.double(), stride=case.stride)
    top = torch.zeros_like(a).scatter(1, a.detach().abs().topk(case.top_t, dim=1).indices, 1.0)
    a = a * top * dropout_mask(case, a.shape)
    if not case.signed:
        a = a.abs()
    if not case.quantize:
        return a
    norm = case.norms.double().reshape(-1, 1, 1)
    dead_zone = case.dead_zone.double().reshape(-1, 1, 1)
    hard = torch.where(a.abs() >= dead_zone, a.sign() * norm, 0.0).detach()
    soft = surrogate_quantizer(a, norm, dead_zone, surrogate)
    return hard + soft - soft.detach()


def surrogate_quantizer(a: Tensor, norm: Tensor, dead_zone: Tensor, surrogate: str) -> Tensor:
    """Returns a function whose derivative replaces the quantizer's; its value does not matter."""
    if surrogate == "identity":
        return a
    width = SIGMA if surrogate == "smooth" else SIGMA * norm
    return norm / 2 * (torch.tanh((a - dead_zone) / width) + torch.tanh((a + dead_zone) / width))


def dropout_mask(case: Case, shape: torch.Size) -> Tensor:
    """Returns 1 for coefficients that survive by the definition of the draw, in rows r * B + b."""
    mask = torch.zeros(shape, dtype=torch.float64)
    rows, atoms, patches_h, patches_w = shape
    for row, atom, i, j in itertools.product(range(rows), range(atoms), range(patches_h), range(patches_w)):
        realization, image = divmod(row, len(case.images))
        image_id = int(case.image_ids[image])
        place = (case.start + realization, i * patches_w + j, atom)
        mask[row, atom, i, j] = oracle.is_kept(int(case.seed), image_id, *place, case.dropout_p)
    return mask


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_gradients_of_one_channel_in_channels_last(relu: bool) -> None:
    """oneDNN reads such strides wrongly with this stride of the convolution."""
    grad, weight = torch.randn(5, 1, 8, 4), torch.randn(16, 1, 3, 3)
    grad = torch.empty_strided(grad.shape, (32, 1, 4, 1)).copy_(grad)
    index = torch.arange(16, dtype=torch.int16).expand(5, 6, 1, 16).contiguous()
    count = torch.full((5, 6, 1), 16, dtype=torch.int32)
    output = grad.new_ones(grad.shape) if relu else None
    actual = reference.conv_transpose_backward_value(grad, output, index, count, weight, [1, 2], [0, 0])
    expected = F.conv2d(grad.double(), weight.double(), stride=[1, 2]).permute(0, 2, 3, 1)
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)
