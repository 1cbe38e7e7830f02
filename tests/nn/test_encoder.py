"""The encoder: its code, fresh masks, realizations, image ids, and refused arguments."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroae import SparseEncoder
from neuroae.kernels import reference
from oracle import same_code


@pytest.fixture
def encoder(atoms: Tensor) -> SparseEncoder:
    return SparseEncoder(atoms, top_t=8, dropout_p=0.5)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 10, 12)


def test_code_is_that_of_the_reference(encoder: SparseEncoder, images: Tensor, atoms: Tensor) -> None:
    norms = atoms.abs().sum((1, 2, 3))
    dead_zone = 3 * 8 / 255 * norms
    code = encoder.encode(images, seed=5)
    arguments = (atoms, norms, dead_zone, torch.tensor(5), torch.arange(3), 2, 8, 0, 0.5, True, True)
    index, value, projection, count = reference.encode(images, *arguments)
    assert torch.equal(code.index, index)
    torch.testing.assert_close(code.value, value)
    torch.testing.assert_close(code.projection, projection)
    assert torch.equal(code.count, count)
    assert torch.equal(encoder(images, seed=5), code.to_dense())


def test_levels_follow_from_the_atoms() -> None:
    encoder = SparseEncoder(torch.full((1, 1, 4, 4), 0.25), top_t=1, epsilon=0.1, beta=2.0)
    assert encoder.norms.tolist() == [4.0]
    assert encoder.dead_zone.tolist() == pytest.approx([0.8])


def test_masks_are_fresh_in_every_call(encoder: SparseEncoder, images: Tensor) -> None:
    assert not same_code(encoder.encode(images), encoder.encode(images))
    assert same_code(encoder.encode(images, seed=1), encoder.encode(images, seed=1))
    assert not same_code(encoder.encode(images, seed=1), encoder.encode(images, seed=2))


def test_manual_seed_governs_the_masks(encoder: SparseEncoder, images: Tensor) -> None:
    torch.manual_seed(9)
    first, second = encoder(images), encoder(images)
    torch.manual_seed(9)
    assert torch.equal(encoder(images), first)
    assert torch.equal(encoder(images), second)


def test_dropout_stays_on_in_evaluation(encoder: SparseEncoder, images: Tensor) -> None:
    assert same_code(encoder.eval().encode(images, seed=1), encoder.train().encode(images, seed=1))
    assert (encoder.eval().encode(images).count < 8).any()


def test_realizations_are_those_of_single_draws(encoder: SparseEncoder, images: Tensor) -> None:
    code = encoder.encode(images, realizations=4, seed=1)
    selection = encoder.select(images)
    for realization in range(4):
        rows = slice(3 * realization, 3 * realization + 3)
        one = selection.draw(seed=1, start=realization)
        assert torch.equal(code.index[rows], one.index)
        assert torch.equal(code.value[rows], one.value)
    assert same_code(selection.draw(seed=1), encoder.encode(images, seed=1))


def test_a_mask_follows_from_the_image_id(encoder: SparseEncoder, images: Tensor) -> None:
    together = encoder.encode(images, seed=1, image_ids=torch.tensor([7, 2**32 - 1, 40]))
    alone = encoder.encode(images[2:], seed=1, image_ids=torch.tensor([40]))
    assert torch.equal(together.index[2:], alone.index)
    assert torch.equal(together.value[2:], alone.value)


def images_of(number: float, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape or (1, 3, 8, 8), number, dtype=dtype)


REFUSED_IMAGES = {
    "list": ([[0.0]], TypeError, "images is a list, expected a tensor"),
    "uint8": (images_of(0, dtype=torch.uint8), TypeError, "images has dtype torch.uint8, .*divide by 255"),
    "int64": (images_of(0, dtype=torch.int64), TypeError, "images has dtype torch.int64"),
    "float64": (
        images_of(0, dtype=torch.float64),
        TypeError,
        "images has dtype torch.float64, expected torch.float32",
    ),
    "float16": (images_of(0, dtype=torch.float16), TypeError, "images has dtype torch.float16"),
    "bfloat16": (images_of(0, dtype=torch.bfloat16), TypeError, "images has dtype torch.bfloat16"),
    "one image": (images_of(0, 3, 8, 8), ValueError, r"images has shape \(3, 8, 8\), expected \(B, 3, H, W\)"),
    "channels": (images_of(0, 1, 1, 8, 8), ValueError, r"images has shape \(1, 1, 8, 8\), expected \(B, 3, H, W\)"),
    "small": (images_of(0, 1, 3, 3, 8), ValueError, "images are 3 x 8, expected at least one patch, 4 x 4"),
    "above 1": (images_of(1.00001), ValueError, r"images holds .* to 1.00001, expected pixels in \[0, 1\]"),
    "below 0": (images_of(-1e-5), ValueError, r"images holds values from -1e-05 to .*, expected pixels in \[0, 1\]"),
    "bytes": (images_of(255.0), ValueError, "images holds values .*divide by 255"),
    "NaN": (images_of(float("nan")), ValueError, "images holds values .*nan"),
}


@pytest.mark.parametrize(("images", "error", "message"), REFUSED_IMAGES.values(), ids=list(REFUSED_IMAGES))
def test_images_that_do_not_fit_are_refused(
    encoder: SparseEncoder, images: Any, error: type[Exception], message: str
) -> None:
    for call in (encoder, encoder.encode, encoder.select):
        with pytest.raises(error, match=message):
            call(images)


def test_pixels_outside_the_range_by_rounding_are_accepted(encoder: SparseEncoder, images: Tensor) -> None:
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 1 + 9e-7, -9e-7
    encoder.encode(images)


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("stride", 0, ValueError, "stride is 0, expected at least 1"),
        ("stride", 1.5, TypeError, "stride is a float, expected an int"),
        ("top_t", 0, ValueError, r"top_t is 0, expected in \[1, 20\]"),
        ("top_t", 21, ValueError, r"top_t is 21, expected in \[1, 20\]"),
        ("top_t", True, TypeError, "top_t is a bool"),
        ("dropout_p", 1, ValueError, r"dropout_p is 1, expected in \[0, 1\)"),
        ("dropout_p", -0.1, ValueError, "dropout_p is -0.1"),
        ("dropout_p", float("nan"), ValueError, "dropout_p is nan"),
        ("dropout_p", "0.5", TypeError, "dropout_p is a str, expected a number"),
        ("epsilon", 8.0, ValueError, r"epsilon is 8.0, expected in \[0, 1\]"),
        ("beta", -1.0, ValueError, "beta is -1.0, expected at least 0"),
        ("quantize", 1, TypeError, "quantize is a int, expected a bool"),
        ("signed", "no", TypeError, "signed is a str, expected a bool"),
        ("signed", np.True_, TypeError, r"signed is a numpy\.bool_?, expected a bool"),
        ("sigma", 0.0, ValueError, "sigma is 0.0, expected above 0"),
        ("surrogate", "tanh", ValueError, "surrogate is 'tanh', expected one of identity, smooth, smooth-normalized"),
        ("backend", "gpu", ValueError, "backend is 'gpu', expected auto, reference, cpu or triton"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    atoms: Tensor, argument: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SparseEncoder(atoms, **{"top_t": 8, argument: value})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda atoms: atoms.tolist(), TypeError, "atoms is a list, expected a tensor"),
        (lambda atoms: atoms.double(), TypeError, "atoms has dtype torch.float64"),
        (lambda atoms: atoms.flatten(1), ValueError, r"atoms has shape \(20, 48\), expected \(L, C, n, n\)"),
        (lambda atoms: atoms[..., :3], ValueError, r"atoms has shape \(20, 3, 4, 3\)"),
        (lambda atoms: atoms[:0], ValueError, r"atoms has shape \(0, 3, 4, 4\)"),
        (lambda atoms: torch.ones(32_768, 1, 1, 1), ValueError, "atoms holds 32768 atoms, expected at most 32767"),
        (lambda atoms: atoms * 1.001, ValueError, "atoms has l2 norms from 1.001 to 1.001, expected 1"),
        (lambda atoms: atoms.index_fill(0, torch.tensor(3), float("nan")), ValueError, "atoms has l2 norms"),
    ],
    ids=["list", "float64", "flat", "oblong", "none", "too many", "not unit", "NaN"],
)
def test_atoms_that_do_not_fit_are_refused(atoms: Tensor, change: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseEncoder(change(atoms), top_t=1)


@pytest.mark.parametrize("realizations", [0, -1], ids=str)
def test_no_realizations_are_refused(encoder: SparseEncoder, images: Tensor, realizations: int) -> None:
    with pytest.raises(ValueError, match=f"realizations is {realizations}, expected at least 1"):
        encoder.encode(images, realizations=realizations)


@pytest.mark.parametrize("layout", ["channels_last", "expanded"])
def test_images_in_any_memory_order(encoder: SparseEncoder, images: Tensor, layout: str) -> None:
    images = images[:1].repeat(3, 1, 1, 1)
    expected = encoder.encode(images, seed=1)
    other = (
        images.contiguous(memory_format=torch.channels_last)
        if layout == "channels_last"
        else images[:1].expand(3, -1, -1, -1)
    )
    assert same_code(encoder.encode(other, seed=1), expected)


def test_an_empty_batch_is_a_batch(encoder: SparseEncoder, images: Tensor) -> None:
    assert encoder(images[:0]).shape == (0, 20, 4, 5)
    assert encoder.encode(images[:0], realizations=3).shape == (0, 20, 4, 5)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_no_other_backend_serves_in_the_place_of_the_one_asked_for(
    atoms: Tensor, monkeypatch: pytest.MonkeyPatch, backend: Literal["cpu", "triton"]
) -> None:
    encoder = SparseEncoder(atoms, top_t=2)
    encoder.backend = backend
    monkeypatch.setattr("neuroae.nn.encoder.backend_name", lambda device_type: "reference")
    with pytest.raises(ValueError, match=f"backend is '{backend}', which does not serve tensors on cpu"):
        encoder(torch.rand(1, 3, 8, 8))
