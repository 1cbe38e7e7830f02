"""The gradients of the operations in autograd: receivers, sums, and refused second derivatives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import oracle
from dictionaries import unit_atoms
from neuroae import SparseCode, SparseConvTranspose2d, SparseEncoder
from neuroae.kernels import reference
from neuroae.nn.convolutions import WinogradConvTranspose2d
from neuroae.nn.layer_autograd import ConvTranspose, LayerSettings


@pytest.fixture
def encoder(atoms: Tensor) -> SparseEncoder:
    return SparseEncoder(atoms, stride=3, top_t=8, dropout_p=0.5)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 11, 14, requires_grad=True)


def image_gradient(code: SparseCode, grad: Tensor, images: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(code.value, images, grad)
    return result


@pytest.mark.parametrize("surrogate", ["identity", "smooth", "smooth-normalized"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "projections"])
def test_encode_passes_the_surrogate_gradient(
    atoms: Tensor, images: Tensor, surrogate: str, signed: bool, quantize: bool
) -> None:
    encoder = SparseEncoder(
        atoms, stride=3, top_t=8, dropout_p=0.5, surrogate=surrogate, sigma=0.3, signed=signed, quantize=quantize
    )
    code = encoder.encode(images, seed=1)
    grad = torch.randn(code.value.shape)
    expected = reference.encode_backward(
        grad, code.index, code.projection, code.count, atoms, encoder.norms, encoder.dead_zone, 11, 14, 3, 2,
        surrogate, 0.3, quantize, signed,
    )  # fmt: skip
    oracle.assert_close(image_gradient(code, grad, images), expected, "image gradient")


def test_drawing_passes_the_gradient_of_encoding(encoder: SparseEncoder, images: Tensor) -> None:
    drawn, fused = encoder.select(images).draw(seed=4), encoder.encode(images, seed=4)
    assert torch.equal(drawn.index, fused.index)
    grad = torch.randn(fused.value.shape)
    assert torch.equal(image_gradient(drawn, grad, images), image_gradient(fused, grad, images))


def test_the_image_gets_the_sum_over_realizations(encoder: SparseEncoder, images: Tensor) -> None:
    selection = encoder.select(images)
    receiver = torch.empty(6, 3, 11, 14, requires_grad=True)
    together, apart = selection.draw(seed=4, count=3), selection.draw(seed=4, count=3, receiver=receiver)
    grad = torch.randn(together.value.shape)
    each = image_gradient(apart, grad, receiver)
    oracle.assert_close(image_gradient(together, grad, images), each.unflatten(0, (3, 2)).sum(0), "summed gradient")
    for realization in range(3):
        rows = slice(2 * realization, 2 * realization + 2)
        one = selection.draw(seed=4, start=realization)
        oracle.assert_close(each[rows], image_gradient(one, grad[rows], images), "gradient of one realization")


def test_two_uses_of_a_code_add_up(encoder: SparseEncoder, images: Tensor) -> None:
    code = encoder.encode(images, seed=1)
    (code.value.sum() + 2 * code.to_dense().sum()).backward()
    assert images.grad is not None
    oracle.assert_close(
        images.grad,
        image_gradient(encoder.encode(images, seed=1), torch.full_like(code.value, 3.0), images),
        "gradient",
    )


def test_only_values_are_differentiable(encoder: SparseEncoder, images: Tensor) -> None:
    for code in (encoder.encode(images), encoder.select(images).draw()):
        assert code.value.requires_grad
        assert not code.projection.requires_grad
        assert not code.index.requires_grad
        assert not code.count.requires_grad


def test_images_without_gradient_give_codes_without(encoder: SparseEncoder, images: Tensor) -> None:
    assert not encoder.encode(images.detach()).value.requires_grad
    with torch.no_grad():
        assert not encoder.encode(images).value.requires_grad


CONV_INPUTS = {"value": 2, "weight": 4, "bias": 5}


@pytest.mark.parametrize(
    "names", [("value",), ("weight",), ("bias",), ("value", "weight"), tuple(CONV_INPUTS)], ids=" and ".join
)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_transposed_convolution_gives_the_gradients_asked_for(
    encoder: SparseEncoder, images: Tensor, names: tuple[str, ...], relu: bool
) -> None:
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    code = encoder.encode(images.detach(), seed=1)
    inputs = {"value": code.value, "weight": layer.weight.detach(), "bias": torch.randn(6)}
    for name in names:
        inputs[name].requires_grad_()
    output = conv(code, inputs, relu)
    grad = torch.randn(output.shape)
    output.backward(grad)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    dense = reference.to_dense(leaves["value"], code.index, code.count, 20)
    dense_output = torch.nn.functional.conv_transpose2d(dense, leaves["weight"], leaves["bias"], 3)
    (dense_output.relu() if relu else dense_output).backward(grad)
    for name, tensor in inputs.items():
        if name not in names:
            assert tensor.grad is None
            continue
        actual, expected = tensor.grad, leaves[name].grad
        assert actual is not None
        assert expected is not None
        if name == "value":
            expected = expected.where(code.index >= 0, 0.0)
        oracle.assert_close(actual, expected, f"gradient to {name}")


def conv(code: SparseCode, inputs: dict[str, Tensor], relu: bool) -> Tensor:
    output: Tensor = ConvTranspose.apply(
        code.index,
        inputs["value"],
        code.count,
        None,
        inputs["weight"],
        inputs["bias"],
        inputs["weight"].detach(),
        inputs["bias"].detach(),
        LayerSettings("auto", (3, 3), (0, 0), (0, 0), relu),
    )
    return output


def test_an_infinite_gradient_at_a_dead_unit_is_no_gradient_whoever_asks() -> None:
    """Not 0 * inf."""
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.0)
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    layer.bias.data.fill_(-1e6)
    code = encoder.encode(torch.rand(1, 3, 10, 10), seed=1)
    code.value.requires_grad_()
    output = layer(code, relu=True)
    output.backward(torch.full_like(output, torch.inf))
    for tensor in (code.value, layer.weight, layer.bias):
        assert tensor.grad is not None
        assert tensor.grad.eq(0).all()


def test_under_autocast_the_weight_gets_a_gradient_that_was_not_rounded(encoder: SparseEncoder) -> None:
    """The gather sums it in float32; a pass through bfloat16 would cut it."""
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    code = encoder.encode(torch.rand(2, 3, 10, 10), seed=1)
    code.survivors = None  # so many survivors that the dense product would be faster
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(code)
    output.backward(torch.rand(output.shape).bfloat16())
    for parameter in (layer.weight, layer.bias):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert not torch.equal(parameter.grad, parameter.grad.bfloat16().float())


def test_function_transforms_give_the_same_gradient(encoder: SparseEncoder, images: Tensor) -> None:
    layer = SparseConvTranspose2d(20, 6, 4, 3)

    def loss(x: Tensor) -> Tensor:
        return layer(encoder.encode(x, seed=1), relu=True).square().sum()

    (expected,) = torch.autograd.grad(loss(images), images)
    assert torch.equal(torch.func.grad(loss)(images.detach()), expected)


def test_gradients_that_keep_their_graph_are_the_same_and_may_be_changed(
    encoder: SparseEncoder, images: Tensor
) -> None:
    def loss() -> Tensor:
        return encoder(images, seed=1).square().sum()

    (expected,) = torch.autograd.grad(loss(), images)
    (gradient,) = torch.autograd.grad(loss(), images, create_graph=True)
    assert torch.equal(gradient, expected)
    assert torch.equal(gradient.mul_(2), 2 * expected)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"linear": torch.sum, "squared": lambda output: output.square().sum()}
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@losses
def test_differentiating_the_encoder_twice_is_an_error(
    encoder: SparseEncoder, images: Tensor, loss: Callable[[Tensor], Tensor]
) -> None:
    value = loss(encoder(images))
    (grad,) = torch.autograd.grad(value, images, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        (value + grad.norm()).backward()


@losses
def test_differentiating_the_convolution_twice_is_an_error(
    encoder: SparseEncoder, images: Tensor, loss: Callable[[Tensor], Tensor]
) -> None:
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    value = loss(layer(encoder.encode(images)))
    (grad,) = torch.autograd.grad(value, images, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        (value + grad.norm()).backward()


def encoded(encoder: SparseEncoder, x: Tensor) -> Tensor:
    return encoder(x, seed=1)


def drawn(encoder: SparseEncoder, x: Tensor) -> Tensor:
    return encoder.encode(x, realizations=2, seed=1).value


def decoded(encoder: SparseEncoder, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return WinogradConvTranspose2d(20, 5, 3)(encoder(x, seed=1))


@losses
@pytest.mark.parametrize("layer", [encoded, drawn, decoded], ids=lambda layer: layer.__name__)
def test_second_derivatives_to_what_is_named_are_an_error(
    encoder: SparseEncoder, images: Tensor, layer: Callable[..., Tensor], loss: Callable[[Tensor], Tensor]
) -> None:
    """Where inputs are named, autograd goes to these alone, and past whatever else was recorded."""
    (grad,) = torch.autograd.grad(loss(layer(encoder, images)), images, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(grad.square().sum(), images)


@losses
@pytest.mark.parametrize("kind", [SparseConvTranspose2d, WinogradConvTranspose2d], ids=lambda kind: kind.__name__)
def test_a_penalty_on_the_gradient_does_not_vanish(
    encoder: SparseEncoder, images: Tensor, kind: Any, loss: Callable[[Tensor], Tensor]
) -> None:
    layer, code = kind(20, 6, 3), encoder.encode(images)
    value = loss(layer(code if kind is SparseConvTranspose2d else code.to_dense()))
    (grad,) = torch.autograd.grad(value, images, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        (value + grad.square().sum()).backward(inputs=list(layer.parameters()))


def test_jacobians_of_function_transforms(encoder: SparseEncoder) -> None:
    x = torch.rand(1, 3, 7, 7)
    expected = torch.autograd.functional.jacobian(lambda x: encoder(x, seed=1).sum(1), x)
    assert expected.any()
    assert torch.equal(torch.func.jacrev(lambda x: encoder(x, seed=1).sum(1))(x), expected)


def test_nested_function_transforms_are_an_error(encoder: SparseEncoder, images: Tensor) -> None:
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    gradient = torch.func.grad(lambda x: layer(encoder.encode(x, seed=1)).square().sum())
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.func.grad(lambda x: gradient(x).square().sum())(images.detach())


def test_the_backward_pass_stays_on_the_backend_of_the_forward_pass(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``backend="reference"`` differentiates by the reference too."""
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5, backend="reference")
    layer = SparseConvTranspose2d(20, 6, 4)
    monkeypatch.setattr("neuroae.kernels.registration.load_backend", pytest.fail)
    layer(encoder.encode(images), relu=True).sum().backward()
    assert images.grad is not None
