"""SparseCode and TopT: the dense tensor, the order of realizations, and refusals."""

import pytest
import torch
from torch import Tensor, nn

import oracle
from neuroae import SparseCode, SparseConvTranspose2d, SparseEncoder
from neuroae.kernels.ops import used_slots


@pytest.fixture
def encoder(atoms: Tensor) -> SparseEncoder:
    return SparseEncoder(atoms, stride=3, top_t=8, dropout_p=0.5)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 10, 13, requires_grad=True)


def test_fields(encoder: SparseEncoder, images: Tensor) -> None:
    code = encoder.encode(images, realizations=3)
    oracle.assert_well_formed((code.index, code.value.detach(), code.projection, code.count), 20)
    assert code.index.shape == (6, 3, 4, 8)
    assert code.shape == (6, 20, 3, 4)
    assert code.atoms == 20
    assert code.backend == encoder.backend


@pytest.mark.parametrize("mode", ["plain", "inference", "gradient"])
def test_users_never_see_what_unused_slots_hold(encoder: SparseEncoder, images: Tensor, mode: str) -> None:
    """Kernels leave them as they were, here poisoned by ``tests/conftest.py``."""
    with torch.inference_mode(mode == "inference"):
        code = encoder.encode(images if mode == "gradient" else images.detach(), seed=1)
    unused = ~used_slots(code.count, 8)
    assert unused.any()
    assert code.parts[1].isnan()[unused].all()
    assert code.value is code.parts[1]
    for part, number in ((code.index, -1), (code.value, 0), (code.projection, 0)):
        assert (part[unused] == number).all()
    oracle.assert_well_formed((code.index, code.value.detach(), code.projection, code.count), 20)


def test_looking_at_a_code_leaves_its_gradients_alone(encoder: SparseEncoder, images: Tensor) -> None:
    """Even after the layer has saved the code for its backward pass."""
    layer = SparseConvTranspose2d(20, 6, 4, 3)
    gradients = []
    for looks in (False, True):
        code = encoder.encode(images, seed=1)
        output = layer(code).square().sum()
        if looks:
            assert (code.index >= -1).all()
        gradients.append(torch.autograd.grad(output, (code.value, images, layer.weight)))
    for plain, looked in zip(*gradients, strict=True):
        assert torch.equal(plain, looked)


def test_to_dense_puts_each_value_at_its_atom() -> None:
    index = torch.tensor([[3, 1, -1], [-1, -1, -1]], dtype=torch.int16).reshape(1, 1, 2, 3)
    value = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0]]).reshape(1, 1, 2, 3)
    code = SparseCode(index, value, value, torch.tensor([[[2, 0]]], dtype=torch.int32), atoms=5)
    dense = code.to_dense()
    assert dense.shape == code.shape == (1, 5, 1, 2)
    assert dense[0, :, 0, 0].tolist() == [0.0, -1.0, 0.0, 2.0, 0.0]
    assert dense[0, :, 0, 1].tolist() == [0.0] * 5


def test_to_dense_of_a_full_code_is_the_quantized_projection(atoms: Tensor, images: Tensor) -> None:
    """With T = L and no dropout the code holds every projection."""
    encoder = SparseEncoder(atoms, stride=3, top_t=20, dropout_p=0.0, quantize=False)
    expected = torch.nn.functional.conv2d(images.detach().double(), atoms.double(), stride=3)
    oracle.assert_close(encoder(images).detach(), expected.float(), "dense code")


def test_to_dense_passes_gradients_to_used_and_dead_slots_alike(encoder: SparseEncoder, images: Tensor) -> None:
    code = encoder.encode(images, seed=2)
    grad = torch.randn(code.shape)
    (actual,) = torch.autograd.grad(code.to_dense(), code.value, grad)
    used = code.index >= 0
    expected = grad.permute(0, 2, 3, 1).gather(-1, code.index.long().clamp_min(0))
    assert (code.value[used] == 0).any()
    assert torch.equal(actual[used], expected[used])


def test_values_in_unused_slots_have_no_effect(encoder: SparseEncoder, images: Tensor) -> None:
    """A step along a gradient, or noise, may change them."""
    code = encoder.encode(images, seed=2)
    layer, dense, expected = (
        SparseConvTranspose2d(20, 6, 4, 3),
        nn.ConvTranspose2d(20, 6, 4, 3),
        code.to_dense().detach(),
    )
    dense.load_state_dict(layer.state_dict())
    shifted = code.with_value(code.value.where(code.index >= 0, 0.7), None)
    assert torch.equal(shifted.to_dense(), expected)
    oracle.assert_close(layer(shifted).detach(), dense(expected).detach(), "output")
    (gradient,) = torch.autograd.grad(shifted.to_dense().sum(), shifted.value)
    assert torch.equal(gradient, (code.index >= 0).float())


def test_selection_is_the_top_t(encoder: SparseEncoder, images: Tensor, atoms: Tensor) -> None:
    selection = encoder.select(images)
    assert selection.atom.dtype == torch.int16
    assert selection.images is images
    projections = torch.nn.functional.conv2d(images.detach().double(), atoms.double(), stride=3)
    expected = projections.abs().topk(8, dim=1).indices.sort(dim=1).values.permute(0, 2, 3, 1)
    assert torch.equal(selection.atom.long(), expected)


def test_draws_start_anywhere(encoder: SparseEncoder, images: Tensor) -> None:
    """Realizations are numbered, so that they can be drawn in chunks."""
    selection = encoder.select(images)
    together = selection.draw(seed=3, start=0, count=5)
    for start, count in ((0, 2), (2, 3), (4, 1)):
        chunk = selection.draw(seed=3, start=start, count=count)
        assert torch.equal(chunk.index, together.index[2 * start : 2 * (start + count)])
        assert torch.equal(chunk.value, together.value[2 * start : 2 * (start + count)])
    assert not torch.equal(together.index[:2], together.index[2:4])


def test_draws_without_a_seed_are_fresh(encoder: SparseEncoder, images: Tensor) -> None:
    selection = encoder.select(images)
    assert not torch.equal(selection.draw().index, selection.draw().index)


@pytest.mark.parametrize(
    "shape", [(2, 3, 10, 13), (6, 3, 10, 12), (3, 2, 3, 10, 13)], ids=["B rows", "other size", "5 dimensions"]
)
def test_a_receiver_of_another_shape_is_refused(
    encoder: SparseEncoder, images: Tensor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"receiver has shape .* expected \(6, 3, 10, 13\)"):
        encoder.select(images).draw(count=3, receiver=torch.zeros(shape))


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (2**32 - 1, 2), (0, -1)], ids=["start", "end", "count"])
def test_realizations_that_do_not_exist_are_refused(
    encoder: SparseEncoder, images: Tensor, start: int, count: int
) -> None:
    with pytest.raises(ValueError, match=r"realizations|count"):
        encoder.select(images).draw(start=start, count=count)


def test_a_draw_with_a_gradient_refuses_images_changed_since_the_selection(
    encoder: SparseEncoder, images: Tensor
) -> None:
    changed = images * 1.0
    selection = encoder.select(changed)
    changed.mul_(0.5)
    with pytest.raises(RuntimeError, match="images were changed in place after the selection"):
        selection.draw(seed=1)
    with torch.no_grad():
        selection = encoder.select(images)
        images.mul_(0.5)
    selection.draw(seed=1, receiver=torch.empty_like(images))
