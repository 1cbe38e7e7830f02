"""The random numbers of dropout: Random123's published vectors, the counter's layout, and the rate of dropping."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracle
from neuroae.kernels.philox import drop_threshold, philox4x32, split_seed
from neuroae.kernels.reference import keep_mask
from philox_vectors import PUBLISHED
from strategies import words


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert tensor_philox(counter, key) == list(expected)
    assert oracle.philox(counter, key) == list(expected)


@given(st.tuples(words(), words(), words(), words()), st.tuples(words(), words()))
def test_agrees_with_integer_arithmetic(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    assert tensor_philox(counter, key) == oracle.philox(counter, key)


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    image_id=words(),
    realization=st.one_of(st.integers(0, 50), st.just(2**32 - 1)),
    dropout_p=st.sampled_from((0.0, 0.25, 0.5, 0.95)),
)
def test_counter_layout(seed: int, image_id: int, realization: int, dropout_p: float) -> None:
    """Key: the seed's words, low first. Counter: atom // 4, patch, realization, image id. Word: atom % 4."""
    atom = torch.tensor([0, 3, 4, 499, 32_766]).expand(1, 2, 3, 5)
    keep = keep_mask(atom, torch.tensor(seed), torch.tensor([image_id]), realization, 1, dropout_p)
    for i, j, slot in itertools.product(range(2), range(3), range(5)):
        expected = oracle.is_kept(seed, image_id, realization, i * 3 + j, int(atom[0, i, j, slot]), dropout_p)
        assert bool(keep[0, 0, i, j, slot]) == expected


def test_seed_words_are_in_twos_complement() -> None:
    low, high = split_seed(torch.tensor(-2))
    assert (int(low), int(high)) == (0xFFFFFFFE, 0xFFFFFFFF)


def test_threshold_comes_from_the_double() -> None:
    assert drop_threshold(0.95) == 4_080_218_931
    assert drop_threshold(0.0) == 0


def test_a_word_at_the_threshold_is_kept() -> None:
    word = oracle.philox((1, 0, 2, 3), (9, 0))[1]
    for dropout_p, expected in ((word / 2**32, True), ((word + 1) / 2**32, False)):
        keep = keep_mask(torch.full((1, 1, 1, 1), 5), torch.tensor(9), torch.tensor([3]), 2, 1, dropout_p)
        assert bool(keep) == expected


@pytest.mark.parametrize("dropout_p", [0.0, 0.5, 0.95, 0.999])
def test_dropped_fraction(dropout_p: float) -> None:
    """Within five standard deviations over 400,000 draws of different atoms, patches, realizations and images."""
    keep = many_draws(dropout_p)
    allowed = 5 * (dropout_p * (1 - dropout_p) / keep.numel()) ** 0.5
    assert abs((~keep).double().mean().item() - dropout_p) <= allowed


@pytest.mark.parametrize("dimension", range(5), ids=["realization", "image", "row", "column", "atom"])
def test_neighbours_are_independent(dimension: int) -> None:
    """Draws whose counters differ in one number agree as often as independent draws: half the time."""
    keep = many_draws(0.5)
    left, right = (
        keep.narrow(dimension, 0, keep.shape[dimension] - 1),
        keep.narrow(dimension, 1, keep.shape[dimension] - 1),
    )
    agreement = (left == right).double().mean().item()
    assert abs(agreement - 0.5) <= 5 * 0.5 / left.numel() ** 0.5


def many_draws(dropout_p: float) -> Tensor:
    """(realizations, images, rows, columns, atoms) bool."""
    atom = torch.arange(100).expand(8, 10, 10, 100)
    return keep_mask(atom, torch.tensor(1234), torch.arange(8), 0, 5, dropout_p)


def tensor_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    c0, c1, c2, c3, k0, k1 = (torch.tensor(word) for word in (*counter, *key))
    result: list[int] = philox4x32((c0, c1, c2, c3), (k0, k1)).tolist()
    return result
