"""The Triton backend's Philox4x32-10: on a GPU, or through ``test_triton_interpreter.py``."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from philox_vectors import PUBLISHED
from strategies import words
from triton_device import MARKS, to_device

pytestmark = MARKS

triton = pytest.importorskip("triton", reason="Triton is published for Linux only")
tl = triton.language
philox4x32 = importlib.import_module("neuroae.kernels.triton.philox").philox4x32


@triton.jit
def words_kernel(numbers, words):
    """Computes ``words``, four int64, from ``numbers``, four of the counter and two of the key."""
    lane = tl.arange(0, 1)
    c0 = tl.load(numbers + lane).to(tl.uint32)
    c1 = tl.load(numbers + 1 + lane).to(tl.uint32)
    c2 = tl.load(numbers + 2 + lane).to(tl.uint32)
    c3 = tl.load(numbers + 3 + lane).to(tl.uint32)
    k0 = tl.load(numbers + 4).to(tl.uint32)
    k1 = tl.load(numbers + 5).to(tl.uint32)
    w0, w1, w2, w3 = philox4x32(c0, c1, c2, c3, k0, k1)
    tl.store(words + lane, w0.to(tl.int64))
    tl.store(words + 1 + lane, w1.to(tl.int64))
    tl.store(words + 2 + lane, w2.to(tl.int64))
    tl.store(words + 3 + lane, w3.to(tl.int64))


def kernel_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    numbers = to_device(torch.tensor([*counter, *key]), "cuda")
    words = torch.empty(4, dtype=torch.int64, device=numbers.device)
    words_kernel[(1,)](numbers, words)
    return words.tolist()


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert kernel_philox(counter, key) == list(expected)


@settings(max_examples=50)
@given(st.tuples(words(), words(), words(), words()), st.tuples(words(), words()))
def test_agrees_with_integer_arithmetic(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    assert kernel_philox(counter, key) == oracle.philox(counter, key)
