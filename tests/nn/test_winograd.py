"""WinogradConvTranspose2d against nn.ConvTranspose2d."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oracle
from neuroae.nn import convolutions
from neuroae.nn.convolutions import WinogradConvTranspose2d

FUNCTION = "DenseConvTransposeBackward"
OTHERS: dict[str, dict[str, Any]] = {
    "5 x 5": {"kernel_size": 5},
    "stride": {"kernel_size": 3, "stride": 2},
    "padding": {"kernel_size": 3, "padding": 1},
    "groups": {"kernel_size": 3, "groups": 2},
    "dilation": {"kernel_size": 3, "dilation": 2},
}


@pytest.fixture
def layers() -> tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]:
    return twins(kernel_size=3)


def twins(**settings: Any) -> tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]:
    """Returns the layer, and torch's with the same parameters."""
    dense = nn.ConvTranspose2d(30, 8, **settings)
    layer = WinogradConvTranspose2d(30, 8, **settings)
    layer.load_state_dict(dense.state_dict(), strict=True)
    return layer, dense


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_output_and_gradients_are_those_of_the_dense_layer(backend: Any, relu: bool, bias: bool) -> None:
    layer, dense = twins(kernel_size=3, bias=bias)
    ours, theirs = (torch.randn(2, 30, 9, 6).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    output, expected = layer(ours, relu=relu), dense(theirs)
    assert output.grad_fn.name() == FUNCTION
    expected = expected.relu() if relu else expected
    oracle.assert_close(output, expected, "output")
    grad = torch.randn(output.shape)
    output.backward(grad)
    expected.backward(grad)
    for name, mine, other in [("input", ours, theirs), *named(layer, dense)]:
        assert mine.grad is not None
        assert other.grad is not None
        oracle.assert_close(mine.grad, other.grad, f"gradient to {name}")


def named(layer: nn.Module, dense: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
    return [
        (name, parameter, other)
        for (name, parameter), other in zip(layer.named_parameters(), dense.parameters(), strict=True)
    ]


@pytest.mark.parametrize("receiver", ["input", "weight", "bias"])
def test_only_tensors_that_require_a_gradient_get_one(backend: Any, receiver: str) -> None:
    layer, _ = twins(kernel_size=3)
    images = torch.randn(1, 30, 4, 4)
    tensors = {"input": images, "weight": layer.weight, "bias": layer.bias}
    for name, tensor in tensors.items():
        assert tensor is not None
        tensor.requires_grad_(name == receiver)
    layer(images).sum().backward()
    assert {name for name, tensor in tensors.items() if tensor is not None and tensor.grad is not None} == {receiver}


@pytest.mark.parametrize("settings", OTHERS.values(), ids=list(OTHERS))
def test_other_settings_take_the_dense_layer(settings: dict[str, Any]) -> None:
    layer, dense = twins(**settings)
    images = torch.randn(2, 30, 6, 7)
    assert torch.equal(layer(images), dense(images))
    assert torch.equal(layer(images, relu=True), dense(images).relu())


def test_float64_takes_the_dense_layer(layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]) -> None:
    layer, dense = (layer.double() for layer in layers)
    images = torch.randn(2, 30, 6, 7, dtype=torch.float64)
    assert torch.equal(layer(images), dense(images))


def test_mixed_dtypes_are_refused_as_by_the_dense_layer(
    layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d],
) -> None:
    layer, dense = (layer.double() for layer in layers)
    for either in (layer, dense):
        with pytest.raises(RuntimeError, match=r"type|dtype"):
            either(torch.randn(2, 30, 6, 7))


def test_one_map_without_a_batch_takes_the_dense_layer(
    layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d],
) -> None:
    layer, dense = layers
    images = torch.randn(30, 6, 7)
    assert torch.equal(layer(images), dense(images))


def test_output_size_takes_the_dense_layer(layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]) -> None:
    layer, dense = layers
    images = torch.randn(2, 30, 6, 7)
    assert torch.equal(layer(images, output_size=[8, 9]), dense(images, output_size=[8, 9]))


@pytest.mark.parametrize("matrix_units", [False, True], ids=["without matrix units", "with matrix units"])
def test_autocast_to_bfloat16(
    backend: Any,
    layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d],
    matrix_units: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The output is a rounding of the float32 result, or torch's where that is faster."""
    monkeypatch.setattr(convolutions, "has_matrix_units", lambda: matrix_units)
    layer, dense = layers
    images = torch.randn(2, 30, 6, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        output, rounded = layer(images, relu=True), dense(images).relu()
    assert output.dtype == torch.bfloat16
    if matrix_units:
        assert torch.equal(output, rounded)
    else:
        oracle.assert_rounds_to(output.detach(), dense(images.float()).relu().detach(), "output")


def test_parameters_in_bfloat16(backend: Any, layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]) -> None:
    layer = layers[0].bfloat16()
    images = torch.randn(2, 30, 6, 7).bfloat16()
    output = layer(images)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.bfloat16


def test_differentiating_twice_is_an_error(backend: Any) -> None:
    layer, _ = twins(kernel_size=3)
    images = torch.randn(1, 30, 4, 4).requires_grad_()
    output = layer(images).sum()
    (grad,) = torch.autograd.grad(output, images, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        (output + grad.norm()).backward()


def test_an_empty_batch(backend: Any, layers: tuple[WinogradConvTranspose2d, nn.ConvTranspose2d]) -> None:
    layer = layers[0]
    output = layer(torch.empty(0, 30, 5, 5))
    output.sum().backward()
    assert output.shape == (0, 8, 7, 7)
    assert layer.weight.grad is not None
    assert layer.weight.grad.eq(0).all()


def test_shapes_on_the_meta_device() -> None:
    layer = WinogradConvTranspose2d(30, 8, 3, device="meta")
    assert layer(torch.empty(2, 30, 5, 6, device="meta")).shape == (2, 8, 7, 8)


def test_autocast_leaves_float64_alone() -> None:
    layer, dense = twins(kernel_size=3)
    x = torch.rand(2, 30, 5, 6, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        actual, expected = layer.double()(x), dense.double()(x)
    assert actual.dtype == expected.dtype == torch.float64
    assert torch.equal(actual, expected)


def test_a_weight_is_read_once() -> None:
    reads = []

    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            reads.append(1)
            return weight

    layer, _ = twins(kernel_size=3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Counted())
    reads.clear()
    layer(torch.rand(2, 30, 5, 6))
    assert len(reads) == 1
