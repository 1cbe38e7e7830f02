"""SparseConvTranspose2d against nn.ConvTranspose2d on the dense tensor."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oracle
from dictionaries import unit_atoms
from neuroae import SparseCode, SparseConvTranspose2d, SparseEncoder
from neuroae.nn.convolutions import DENSE_SHARES, is_dense
from strategies import random_code

GEOMETRIES: dict[str, dict[str, Any]] = {
    "CIFAR-10": {"kernel_size": 4, "stride": 2},
    "Imagenette": {"kernel_size": 3},
    "rectangular": {"kernel_size": (3, 5), "stride": (3, 2), "padding": (1, 2), "output_padding": (2, 1)},
    "no bias": {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
    "groups": {"kernel_size": 3, "groups": 2},
    "dilation": {"kernel_size": 3, "dilation": 2, "stride": 2, "output_padding": 1},
}


@pytest.fixture(params=GEOMETRIES.values(), ids=list(GEOMETRIES))
def layers(request: pytest.FixtureRequest) -> tuple[SparseConvTranspose2d, nn.ConvTranspose2d]:
    """Returns the layer, and torch's with the same parameters."""
    dense = nn.ConvTranspose2d(30, 8, **request.param)
    sparse = SparseConvTranspose2d(30, 8, **request.param)
    sparse.load_state_dict(dense.state_dict(), strict=True)
    return sparse, dense


@pytest.fixture
def code() -> SparseCode:
    """A code of 3 rows of 4 x 6 patches over 30 atoms, whose values require grad."""
    index, value, count = random_code((3, 4, 6, 9), 30, torch.Generator().manual_seed(2))
    return SparseCode(index, value.requires_grad_(), value.detach(), count, atoms=30)


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_output_and_gradients_are_those_of_the_dense_layer(
    layers: tuple[SparseConvTranspose2d, nn.ConvTranspose2d], code: SparseCode, relu: bool
) -> None:
    sparse, dense = layers
    output = sparse(code, relu=relu)
    leaf = code.to_dense().detach().requires_grad_()
    expected = dense(leaf).relu() if relu else dense(leaf)
    oracle.assert_close(output, expected, "output")

    grad = torch.randn(output.shape)
    output.backward(grad)
    expected.backward(grad)
    assert code.value.grad is not None
    assert leaf.grad is not None
    is_used = code.index >= 0
    value_grad = leaf.grad.permute(0, 2, 3, 1).gather(-1, code.index.long().clamp_min(0))
    oracle.assert_close(code.value.grad[is_used], value_grad[is_used], "gradient to the values")
    for (name, parameter), other in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        oracle.assert_close(parameter.grad, other.grad, f"gradient to {name}")


def test_a_dense_tensor_takes_the_dense_layer(
    layers: tuple[SparseConvTranspose2d, nn.ConvTranspose2d], code: SparseCode
) -> None:
    sparse, dense = layers
    images = code.to_dense().detach()
    oracle.assert_close(sparse(images), dense(images), "output")
    oracle.assert_close(sparse(images, relu=True), dense(images).relu(), "output after ReLU")


def test_state_dict_goes_both_ways(layers: tuple[SparseConvTranspose2d, nn.ConvTranspose2d], code: SparseCode) -> None:
    sparse, dense = layers
    with torch.no_grad():
        sparse.weight.mul_(2)
    dense.load_state_dict(sparse.state_dict(), strict=True)
    oracle.assert_close(sparse(code), dense(code.to_dense()), "output")


@pytest.mark.parametrize("output_size", [(10, 14), (11, 14), (11, 15)], ids=str)
def test_output_size(code: SparseCode, output_size: tuple[int, int]) -> None:
    layer = SparseConvTranspose2d(30, 8, 4, 2)
    output = layer(code, output_size=output_size)
    oracle.assert_close(output, nn.ConvTranspose2d.forward(layer, code.to_dense(), list(output_size)), "output")
    assert output.shape[2:] == output_size


@pytest.mark.parametrize("output_size", [(9, 14), (10, 16)], ids=["too small", "too large"])
def test_impossible_output_sizes_are_refused(code: SparseCode, output_size: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=r"output_size is .* expected at least \[10, 14\], and less than a stride more"
    ):
        SparseConvTranspose2d(30, 8, 4, 2)(code, output_size=output_size)


def test_a_code_over_another_dictionary_is_refused(code: SparseCode) -> None:
    with pytest.raises(ValueError, match="input is a code over 30 atoms, expected 40"):
        SparseConvTranspose2d(40, 8, 4)(code)


def test_weights_of_one_atom_are_adjacent(layers: tuple[SparseConvTranspose2d, nn.ConvTranspose2d]) -> None:
    sparse, _ = layers
    for module in (sparse, copy.deepcopy(sparse), sparse.to(memory_format=torch.channels_last)):
        assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("convert", [nn.Module.bfloat16, nn.Module.float], ids=["bfloat16", "float"])
def test_parameters_in_other_precisions(code: SparseCode, convert: Any) -> None:
    layer = convert(SparseConvTranspose2d(30, 8, 4, 2))
    output = layer(code)
    assert output.dtype == layer.weight.dtype
    weight, bias = layer.weight.float(), layer.bias.float()
    expected = nn.functional.conv_transpose2d(code.to_dense(), weight, bias, 2)
    oracle.assert_rounds_to(output.detach(), expected.detach(), "output")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_autocast_rounds_the_weights_and_the_output_alone(code: SparseCode, dtype: torch.dtype, relu: bool) -> None:
    """Sums are in float32: the output is a rounding of the float32 result with the rounded weights."""
    layer = SparseConvTranspose2d(30, 8, 4, 2)
    assert layer.bias is not None
    with torch.autocast("cpu", dtype):
        output = layer(code, relu=relu)
    assert output.dtype == dtype
    weight, bias = layer.weight.to(dtype).float(), layer.bias.to(dtype).float()
    expected = nn.functional.conv_transpose2d(code.to_dense(), weight, bias, 2)
    oracle.assert_rounds_to(output.detach(), (expected.relu() if relu else expected).detach(), "output")


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside autocast", "backward inside autocast"])
def test_gradients_under_autocast_are_float32(code: SparseCode, inside: bool) -> None:
    layer = SparseConvTranspose2d(30, 8, 4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(code)
        grad = torch.randn(output.shape).bfloat16()
        if inside:
            output.backward(grad)
    if not inside:
        output.backward(grad)
    weight = layer.weight.detach().bfloat16().float().requires_grad_()
    leaf = code.to_dense().detach().requires_grad_()
    nn.functional.conv_transpose2d(leaf, weight, None, 2).backward(grad.float())
    assert code.value.grad is not None
    assert leaf.grad is not None
    assert layer.weight.grad is not None
    assert weight.grad is not None
    is_used = code.index >= 0
    expected = leaf.grad.permute(0, 2, 3, 1).gather(-1, code.index.long().clamp_min(0))
    oracle.assert_close(code.value.grad[is_used], expected[is_used], "gradient to the values")
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=2**-8, atol=1e-4)


def test_an_empty_batch(code: SparseCode) -> None:
    empty = SparseCode(code.index[:0], code.value[:0], code.projection[:0], code.count[:0], atoms=30)
    layer = SparseConvTranspose2d(30, 8, 4, 2)
    output: Tensor = layer(empty)
    output.sum().backward()
    assert output.shape == (0, 8, 10, 14)
    assert layer.weight.grad is not None
    assert layer.weight.grad.eq(0).all()


def test_a_code_on_another_device_than_the_weight_is_refused(code: SparseCode) -> None:
    layer = SparseConvTranspose2d(30, 8, 4, 2, device="meta")
    with pytest.raises(ValueError, match="input is on cpu, expected meta, where the weight is"):
        layer(code)


class Halved(nn.Module):
    """Keeps a random half of the weights at each access."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (torch.rand_like(weight) < 0.5)


def test_a_random_weight_is_the_same_in_both_directions(code: SparseCode) -> None:
    """The layer is linear in the original weight, so weight times gradient is the output."""
    layer = SparseConvTranspose2d(30, 8, 3, bias=False)
    nn.utils.parametrize.register_parametrization(layer, "weight", Halved())
    output = layer(code).sum()
    output.backward()
    original = layer.parametrizations.weight.original
    assert (original * original.grad).sum().item() == pytest.approx(output.item(), rel=1e-4)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"dilation": 2}], ids=str)
def test_the_dense_layer_computes_in_the_weights_dtype(code: SparseCode, settings: dict[str, Any]) -> None:
    layer = SparseConvTranspose2d(30, 8, 3, **settings).bfloat16()
    assert layer(code).dtype == torch.bfloat16


def test_shapes_without_memory() -> None:
    layer = SparseConvTranspose2d(30, 8, 3, device="meta")
    index, value, count = (tensor.to("meta") for tensor in random_code((3, 4, 6, 9), 30, torch.Generator()))
    assert layer(SparseCode(index, value, value, count, atoms=30)).shape == (3, 8, 6, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dense_and_sparse_computation_agree(code: SparseCode, dtype: torch.dtype) -> None:
    """A code says how many survivors to expect; where they are many, the dense product computes it."""
    layer = SparseConvTranspose2d(30, 8, 4, 2)
    towards = torch.randn(3, 8, 10, 14)
    results = []
    for survivors in (None, 1.0, 29.0):
        value = code.value.detach().requires_grad_()
        expecting = SparseCode(code.index, value, code.projection, code.count, code.atoms, survivors=survivors)
        assert is_dense(expecting, dtype) == (survivors == 29)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            # Rounded values may lie on the other side of a ReLU.
            output = layer(expecting, relu=dtype == torch.float32)
        assert output.dtype == dtype
        results.append([output.float(), *torch.autograd.grad(output.float(), [value, *layer.parameters()], towards)])
    is_used = code.index >= 0
    for sparse, unknown, dense in zip(results[1], results[0], results[2], strict=True):
        assert torch.equal(sparse, unknown)
        tolerance = (1e-5 if dtype == torch.float32 else 2e-2) * float(sparse.detach().abs().max())
        one, other = (part[is_used] if part.shape == is_used.shape else part for part in (sparse, dense))
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("top_t", "p", "dense"), [(50, 0.95, False), (500, 0.95, False), (50, 0, False), (10, 0.75, False), (500, 0, True)]
)
def test_the_encoders_settings_decide_how_codes_are_computed(top_t: int, p: float, dense: bool) -> None:
    encoder = SparseEncoder(unit_atoms(500, 3, 4), stride=2, top_t=top_t, dropout_p=p)
    images = torch.rand(2, 3, 8, 8)
    for code in (encoder.encode(images), encoder.select(images).draw(0, count=2)):
        assert code.survivors == pytest.approx(top_t * (1 - p))
        for dtype in (torch.float32, torch.bfloat16):
            assert is_dense(code, dtype) == dense


@pytest.mark.parametrize("surrogate", ["smooth", "selection"])
def test_the_gradient_of_a_dense_code_is_that_of_a_sparse_one(surrogate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout and top T, all the way to the images."""
    encoder = SparseEncoder(unit_atoms(12, 1, 4), stride=2, top_t=9, dropout_p=0.0, surrogate=surrogate)
    layer = SparseConvTranspose2d(12, 8, 4, 2)
    gradients = []
    for share in (0.3, 1.0):
        monkeypatch.setitem(DENSE_SHARES, torch.float32, share)
        torch.manual_seed(0)
        images = torch.rand(2, 1, 8, 8, requires_grad=True)
        code = encoder.encode(images, seed=0)
        assert is_dense(code, torch.float32) == (share == 0.3)
        output = layer(code, relu=True)
        gradients.append(torch.autograd.grad(output, images, torch.randn_like(output))[0])
    assert float(gradients[0].abs().max()) > 0
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[0].abs().max()))
