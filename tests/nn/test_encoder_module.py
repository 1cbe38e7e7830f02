"""The encoder as a module: saving, loading, copying, moving, and PyTorch's precision settings."""

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dictionaries import unit_atoms
from neuroae import SparseEncoder
from neuroae.models.fingerprints import attributes
from oracle import same_code


@pytest.fixture
def encoder(atoms: Tensor) -> SparseEncoder:
    return SparseEncoder(atoms, top_t=8, dropout_p=0.5)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 10, 12)


def test_state_dict_holds_the_atoms_alone(encoder: SparseEncoder, images: Tensor) -> None:
    state = encoder.state_dict()
    assert list(state) == ["atoms"]
    other = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5)
    other.load_state_dict(state, strict=True)
    assert same_code(other.encode(images, seed=1), encoder.encode(images, seed=1))
    assert torch.equal(other.norms, encoder.norms)
    assert torch.equal(other.dead_zone, encoder.dead_zone)


def test_loading_is_strict(encoder: SparseEncoder, atoms: Tensor) -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        encoder.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        encoder.load_state_dict({"atoms": atoms, "bias": atoms})
    with pytest.raises(RuntimeError, match="size mismatch for atoms"):
        encoder.load_state_dict({"atoms": atoms[:10]})


def test_loading_refuses_atoms_that_are_not_unit_norm(encoder: SparseEncoder, atoms: Tensor) -> None:
    with pytest.raises(ValueError, match="atoms has l2 norms from 2 to 2, expected 1"):
        encoder.load_state_dict({"atoms": 2 * atoms})


def test_assigned_atoms_are_made_contiguous(encoder: SparseEncoder, atoms: Tensor, images: Tensor) -> None:
    expected = encoder.encode(images, seed=1)
    encoder.load_state_dict({"atoms": atoms.contiguous(memory_format=torch.channels_last)}, assign=True)
    assert encoder.atoms.is_contiguous()
    assert same_code(encoder.encode(images, seed=1), expected)


@pytest.mark.parametrize(
    "convert",
    [
        lambda module: module.to(torch.bfloat16),
        lambda module: module.half(),
        lambda module: module.double(),
        lambda module: module.to(memory_format=torch.channels_last),
        lambda module: torch.nn.Sequential(module).to("cpu", torch.bfloat16)[0],
        copy.deepcopy,
    ],
    ids=["bfloat16", "half", "double", "channels_last", "as a part", "deepcopy"],
)
def test_conversions_leave_the_code_alone(encoder: SparseEncoder, images: Tensor, convert: Any) -> None:
    expected = encoder.encode(images, seed=1)
    converted = convert(encoder)
    for buffer in converted.buffers():
        assert buffer.dtype == torch.float32
        assert buffer.is_contiguous()
    assert same_code(converted.encode(images, seed=1), expected)


def test_a_deep_copy_has_separate_atoms(encoder: SparseEncoder) -> None:
    assert copy.deepcopy(encoder).atoms.data_ptr() != encoder.atoms.data_ptr()


def test_saved_modules_and_state_dicts_come_back(encoder: SparseEncoder, images: Tensor, tmp_path: Path) -> None:
    expected = encoder.encode(images, seed=1)
    torch.save(encoder.state_dict(), tmp_path / "state.pt")
    other = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same_code(other.encode(images, seed=1), expected)

    file = io.BytesIO()
    torch.save(encoder, file)
    file.seek(0)
    restored = torch.load(file, weights_only=False)
    assert same_code(restored.encode(images, seed=1), expected)
    with pytest.raises(ValueError, match="l2 norms"):
        restored.load_state_dict({"atoms": 2 * encoder.atoms})


@pytest.fixture
def others() -> Tensor:
    """Atoms of one pixel each. Their l1 norms are 1, far below those of random atoms."""
    return torch.eye(48)[:20].reshape(20, 3, 4, 4).contiguous()


def test_norms_follow_the_atoms_of_a_functional_call(encoder: SparseEncoder, others: Tensor, images: Tensor) -> None:
    expected, before = SparseEncoder(others, top_t=8, dropout_p=0.5)(images, 1), encoder(images, 1)
    for replaced in ({"atoms": others}, {"atoms": others.clone(), "norms": encoder.norms.clone()}):
        assert torch.equal(torch.func.functional_call(encoder, replaced, (images, 1)), expected)
        assert torch.equal(encoder(images, 1), before)


@pytest.mark.parametrize("realizations", [1, 3], ids=["fused", "selected and drawn"])
def test_norms_follow_atoms_changed_in_place(
    encoder: SparseEncoder, others: Tensor, images: Tensor, realizations: int
) -> None:
    encoder.encode(images, realizations)
    encoder.atoms.copy_(others)
    fresh = SparseEncoder(others, top_t=8, dropout_p=0.5)
    assert same_code(encoder.encode(images, realizations, seed=1), fresh.encode(images, realizations, seed=1))
    assert torch.equal(encoder.norms, fresh.norms)
    assert torch.equal(encoder.dead_zone, fresh.dead_zone)


def test_norms_follow_atoms_that_are_changed_and_moved(encoder: SparseEncoder, others: Tensor, images: Tensor) -> None:
    encoder.atoms.copy_(others)
    moved = copy.deepcopy(encoder).double()
    fresh = SparseEncoder(others, top_t=8, dropout_p=0.5)
    assert same_code(moved.encode(images, seed=1), fresh.encode(images, seed=1))


def test_the_gradient_through_the_selection_follows_the_atoms(others: Tensor, images: Tensor, atoms: Tensor) -> None:
    encoder, fresh = (SparseEncoder(each, top_t=8, surrogate="selection") for each in (atoms, others))
    encoder.atoms.copy_(others)
    gradients = []
    for each in (encoder, fresh):
        leaf = images.clone().requires_grad_()
        each(leaf, 1).square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[1].any()
    assert torch.equal(*gradients)


def test_changed_atoms_without_unit_norm_are_refused(encoder: SparseEncoder, images: Tensor) -> None:
    with pytest.raises(ValueError, match="atoms has l2 norms from 3 to 3, expected 1"):
        torch.func.functional_call(encoder, {"atoms": 3 * encoder.atoms}, (images,))
    encoder.atoms.mul_(2)
    with pytest.raises(ValueError, match="atoms has l2 norms from 2 to 2, expected 1"):
        encoder.select(images)


def test_a_draw_is_refused_after_the_atoms_have_changed(
    encoder: SparseEncoder, others: Tensor, images: Tensor
) -> None:
    selection = encoder.select(images)
    encoder.atoms.copy_(others)
    with pytest.raises(RuntimeError, match="the encoder's atoms were changed after the selection"):
        selection.draw(1)


def test_unchanged_atoms_are_not_measured_again(
    encoder: SparseEncoder, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = copy.deepcopy(encoder).to(torch.bfloat16)
    moved.load_state_dict(encoder.state_dict())
    monkeypatch.setattr(SparseEncoder, "measure_levels", lambda _: pytest.fail("measured"))
    for each in (encoder, moved, copy.copy(encoder)):
        each.encode(images, 2)
        each(images)


def test_fingerprints_do_not_depend_on_the_state_of_the_atoms(encoder: SparseEncoder) -> None:
    """So evaluations of models with an encoder keep their earlier fingerprints."""
    assert "atoms_state" in vars(encoder)
    lines = list(attributes(encoder, lambda _: None))
    assert not [line for line in lines if "atoms_state" in line or "selection_width" in line]
    encoder.selection_width = 0.5
    assert [line for line in attributes(encoder, lambda _: None) if "selection_width 0.5" in line]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_does_not_change_the_code(encoder: SparseEncoder, images: Tensor, dtype: torch.dtype) -> None:
    images = images.to(dtype).float().requires_grad_()
    expected = encoder.encode(images, seed=1)
    grad = torch.randn(expected.value.shape)
    (expected_grad,) = torch.autograd.grad(expected.value, images, grad)
    with torch.autocast("cpu", dtype):
        code = encoder.encode(images, seed=1)
        (image_grad,) = torch.autograd.grad(code.value, images, grad)
        from_half = encoder.encode(images.to(dtype), seed=1)
    assert same_code(code, expected)
    assert same_code(from_half, expected)
    assert torch.equal(image_grad, expected_grad)


@pytest.fixture
def low_precision() -> Iterator[None]:
    """Allows PyTorch's float32 convolutions and products to round to fewer bits."""
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.fp32_precision
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.fp32_precision = "bf16"
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.mkldnn.fp32_precision = before[1]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.usefixtures("low_precision")
def test_low_matmul_precision_does_not_change_the_code(images: Tensor, backend: Any) -> None:
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=20, dropout_p=0.0, quantize=False, backend=backend)
    exact = torch.nn.functional.conv2d(images.double(), encoder.atoms.double(), stride=2)
    torch.testing.assert_close(encoder(images), exact.float(), rtol=1e-6, atol=1e-6)


def test_an_encoder_on_the_meta_device_can_be_loaded(encoder: SparseEncoder, images: Tensor) -> None:
    """Large models are built like this."""
    other = SparseEncoder(torch.empty(20, 3, 4, 4, device="meta"), top_t=8, dropout_p=0.5)
    other.to_empty(device="cpu").load_state_dict(encoder.state_dict())
    assert same_code(other.encode(images, seed=1), encoder.encode(images, seed=1))


CHANGED: dict[str, Any] = {
    "stride": 3,
    "top_t": 4,
    "dropout_p": 0.1,
    "epsilon": 0.1,
    "beta": 1.0,
    "quantize": False,
    "signed": False,
    "surrogate": "identity",
    "sigma": 0.5,
    "backend": "reference",
    "atoms": None,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_has_the_same_effect_when_it_is_assigned_later(
    encoder: SparseEncoder, atoms: Tensor, images: Tensor, name: str
) -> None:
    value = unit_atoms(9, 3, 3).transpose(2, 3) if name == "atoms" else CHANGED[name]
    settings = {"atoms": atoms, "top_t": 8, "dropout_p": 0.5} | {name: value}
    setattr(encoder, name, value)
    fresh = SparseEncoder(**settings)
    assert repr(encoder) == repr(fresh)
    assert encoder.atoms.is_contiguous()
    assert all(map(torch.equal, encoder.buffers(), fresh.buffers()))
    assert same_code(encoder.encode(images, seed=1), fresh.encode(images, seed=1))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("epsilon", 8, ValueError, r"epsilon is 8, expected in \[0, 1\]"),
        ("top_t", 21, ValueError, r"top_t is 21, expected in \[1, 20\]"),
        ("atoms", torch.ones(20, 3, 4, 4), ValueError, "atoms has l2 norms"),
        ("atoms", unit_atoms(5, 3, 4), ValueError, r"top_t is 8, expected in \[1, 5\]"),
        ("surrogate", "smoth", ValueError, "surrogate is 'smoth'"),
        ("quantize", 1, TypeError, "quantize is a int"),
        ("backend", "nonsense", ValueError, "nonsense"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_does_not_fit_is_refused_when_it_is_assigned(
    encoder: SparseEncoder, name: str, value: object, error: type[Exception], message: str
) -> None:
    before = repr(encoder)
    with pytest.raises(error, match=message):
        setattr(encoder, name, value)
    assert repr(encoder) == before


def test_an_encoder_loaded_in_inference_mode_has_gradients_afterwards(encoder: SparseEncoder, images: Tensor) -> None:
    with torch.inference_mode():
        encoder.load_state_dict(encoder.state_dict())
    encoder(images.requires_grad_(), seed=1).sum().backward()
    assert images.grad is not None
