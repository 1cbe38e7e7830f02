"""Seeds: disjoint streams by purpose and position, the default from torch's generator, and refusals."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroae import derive_seed
from neuroae.utils.randomness import image_id_tensor, seed_tensor

CPU = torch.device("cpu")


def test_purposes_and_positions_give_different_seeds() -> None:
    positions = list(itertools.product(range(6), repeat=3)) + list(itertools.product(range(40), repeat=2))
    purposes = ("training", "gradient", "selection", "scoring")
    seeds = {derive_seed(7, purpose, *position) for purpose in purposes for position in positions}
    assert len(seeds) == len(purposes) * len(positions)


def test_positions_do_not_run_together() -> None:
    assert derive_seed(1, "attack", 12, 3) != derive_seed(1, "attack", 1, 23)
    assert derive_seed(11, "attack", 2) != derive_seed(1, "attack", 12)
    assert derive_seed(0, "attack") != derive_seed(0, "attack", 0)


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.lists(st.integers(0, 2**40), max_size=3))
def test_derived_seeds_are_seeds(seed: int, purpose: str, position: list[int]) -> None:
    derived = derive_seed(seed, purpose, *position)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, purpose, *position)
    assert int(seed_tensor(derived, CPU)) == derived


def test_derived_seeds_are_the_same_in_every_version() -> None:
    """A change of the derivation would make records irreproducible."""
    assert derive_seed(5, "scoring", 1, 2) == 6884130339146989181


def test_manual_seed_governs_the_default_seed() -> None:
    torch.manual_seed(3)
    first, second = seed_tensor(None, CPU), seed_tensor(None, CPU)
    torch.manual_seed(3)
    assert seed_tensor(None, CPU) == first
    assert seed_tensor(None, CPU) == second
    assert first != second


@pytest.mark.parametrize("seed", [0, -1, -(2**63), 2**63 - 1])
def test_integers_and_tensors_are_the_same_seed(seed: int) -> None:
    for value in (seed, torch.tensor(seed), torch.tensor([seed])):
        tensor = seed_tensor(value, CPU)
        assert tensor.dtype == torch.int64
        assert tensor.shape == ()
        assert int(tensor) == seed


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (2**63, ValueError, r"seed is 9223372036854775808, expected in \[-2\^63, 2\^63\)"),
        (1.0, TypeError, "seed is a float"),
        (True, TypeError, "seed is a bool"),
        ("1", TypeError, "seed is a str"),
        (torch.tensor(1.0), TypeError, "seed is a tensor of 1 x torch.float32, expected one torch.int64"),
        (torch.tensor([1, 2]), TypeError, "seed is a tensor of 2 x torch.int64"),
    ],
    ids=["too large", "float", "bool", "text", "float tensor", "two numbers"],
)
def test_other_seeds_are_refused(seed: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seed_tensor(seed, CPU)  # type: ignore[arg-type]


def test_images_are_numbered_from_zero_by_default() -> None:
    assert image_id_tensor(None, 3, CPU).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("image_ids", "error", "message"),
    [
        ([0, 1], TypeError, "image_ids is list, expected an int64 tensor or None"),
        (torch.zeros(2), TypeError, "image_ids is torch.float32"),
        (torch.arange(3), ValueError, r"image_ids has shape \(3,\), expected \(2,\)"),
        (torch.zeros(2, 1, dtype=torch.int64), ValueError, r"image_ids has shape \(2, 1\), expected \(2,\)"),
    ],
    ids=["list", "floats", "too many", "two dimensions"],
)
def test_other_image_ids_are_refused(image_ids: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        image_id_tensor(image_ids, 2, CPU)  # type: ignore[arg-type]


def test_an_integer_of_numpy_is_a_seed() -> None:
    assert seed_tensor(np.int64(-5), CPU) == seed_tensor(-5, CPU)
    assert derive_seed(np.int64(3), "some") == derive_seed(3, "some")


def test_truth_is_no_seed() -> None:
    for take in (lambda: seed_tensor(True, CPU), lambda: derive_seed(True, "some")):
        with pytest.raises(TypeError, match="seed is a bool, expected an int"):
            take()
