"""The Triton gradient through the selection, compared with the reference: on a GPU, or in the interpreter."""

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracle
from dictionaries import unit_atoms
from neuroae.kernels import reference
from strategies import Case, clear_cases, exact_cases, generators
from triton_device import MARKS, ON_GPU, examples, run

pytestmark = MARKS

WIDTHS = (0.02, 0.1, 0.5)
EXAMPLES = examples(10)


@settings(max_examples=EXAMPLES)
@given(case=clear_cases(most_atoms=80), width=st.sampled_from(WIDTHS), generator=generators())
def test_selection_backward(case: Case, width: float, generator: torch.Generator) -> None:
    assert_gradient(gradient_arguments(case, width, generator), case)


@settings(max_examples=EXAMPLES)
@given(case=exact_cases(), width=st.sampled_from(WIDTHS), generator=generators())
def test_ties_at_the_cut_and_the_edge_of_the_dead_zone(case: Case, width: float, generator: torch.Generator) -> None:
    """All projections are exact, so both backends cut at the same number."""
    assert_gradient(gradient_arguments(case, width, generator), case)


@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "not quantized"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("top_t", [1, 10, 39, 40], ids=["T=1", "T=10", "T=L-1", "T=L"])
def test_settings(quantize: bool, signed: bool, top_t: int) -> None:
    case = replace(small_case(), quantize=quantize, signed=signed, top_t=top_t)
    gradient = assert_gradient(gradient_arguments(case), case)
    assert gradient.any() == (quantize or top_t < 40)


@pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
@pytest.mark.parametrize(("top_t", "room"), [(1, 9), (300, 24), (1100, 9)], ids=str)
def test_a_dictionary_too_large_for_registers(
    top_t: int, room: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffer has room for 9 of the 24 patches, or for all."""
    monkeypatch.setattr(importlib.import_module("neuroae.kernels.triton.select"), "BUFFER_NUMBERS", room * 1100)
    atoms = torch.randint(-1, 2, (1100, 1, 2, 2)) / 2 if ties else unit_atoms(1100, 1, 2)
    images = torch.arange(2 * 20).reshape(2, 1, 4, 5) / 64
    case = replace(small_case(), images=images, atoms=atoms, stride=1, top_t=top_t)
    case = replace(case, norms=atoms.abs().sum((1, 2, 3)), dead_zone=torch.full((1100,), 0.25))
    assert assert_gradient(gradient_arguments(case, width=0.02), case).any()


def test_a_patch_of_more_pixels_than_a_program_handles() -> None:
    case = replace(small_case(), images=torch.rand(2, 3, 16, 14), atoms=unit_atoms(40, 3, 10), stride=3)
    assert_gradient(gradient_arguments(case), case)


def test_the_gradient_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, in a batch, and in another order, to the bit.

    The interpreter's products are NumPy's, which round rows differently in tiles of 16 rows and more. A GPU's do not.
    """
    if not ON_GPU:
        monkeypatch.setattr(importlib.import_module("neuroae.kernels.triton.selection_backward"), "PATCH_TILE", 8)
    case = small_case(images=3)
    grad_code, *others = gradient_arguments(case)
    together = run("selection_backward", grad_code, *others)
    for rows in (torch.tensor([2, 0]), torch.tensor([1])):
        part = run("selection_backward", grad_code[rows], case.images[rows], *others[1:])
        oracle.assert_identical((part,), (together[rows],), ("image gradient",))


@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "not quantized"])
@pytest.mark.parametrize("brightness", [1.0, 0.0], ids=["image", "black image"])
def test_nan_reaches_the_pixels_of_its_patch_and_no_others(quantize: bool, brightness: float) -> None:
    """Also from an atom that takes no part, and where all projections are 0."""
    case = replace(small_case(), quantize=quantize)
    case.images *= brightness
    case.dead_zone[39] = 10
    grad_code, *others = gradient_arguments(case)
    grad_code[1, 0, 2, 39] = float("nan")
    gradient = run("selection_backward", grad_code, *others)
    expected = torch.zeros_like(gradient, dtype=torch.bool)
    expected[1, :, 0:4, 4:8] = True
    assert torch.equal(gradient.isnan(), expected)
    assert torch.equal(reference.selection_backward(grad_code, *others).isnan(), expected)


def test_a_black_image_gets_no_gradient() -> None:
    """All magnitudes are 0, where their derivative is 0."""
    case = small_case()
    case.images[0] = 0
    gradient = assert_gradient(gradient_arguments(case), case)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_all_atoms_in_the_dead_zone() -> None:
    case = replace(small_case(), dead_zone=torch.full((40,), 10.0))
    assert not assert_gradient(gradient_arguments(case), case).any()


def test_pixels_that_no_patch_covers_get_no_gradient() -> None:
    gradient = run("selection_backward", *gradient_arguments(small_case()))
    assert (gradient[:, :, 8:] == 0).all()
    assert (gradient[..., 10:] == 0).all()
    assert (gradient[:, :, :8, :10] != 0).any()


def test_an_empty_batch() -> None:
    case = replace(small_case(), images=torch.empty(0, 3, 9, 11))
    assert run("selection_backward", *gradient_arguments(case)).shape == (0, 3, 9, 11)


def test_unusable_arguments_are_refused() -> None:
    grad_code, images, *others = gradient_arguments(small_case())
    with pytest.raises(ValueError, match="a number for each patch and atom"):
        run("selection_backward", grad_code[..., :39], images, *others)
    with pytest.raises(ValueError, match="expected pixels in"):
        run("selection_backward", grad_code, images + 1, *others)


def small_case(images: int = 2) -> Case:
    """Returns rectangular images with a row and a column without patches."""
    torch.manual_seed(5)
    atoms = unit_atoms(40, 3, 4)
    norms = atoms.abs().sum((1, 2, 3))
    return Case(
        torch.rand(images, 3, 9, 11),
        atoms,
        norms,
        0.1 * norms,
        stride=2,
        top_t=10,
        dropout_p=0.0,
        quantize=True,
        signed=True,
        seed=torch.tensor(0),
        image_ids=torch.arange(images),
        start=0,
        count=1,
    )


def gradient_arguments(case: Case, width: float = 0.1, generator: torch.Generator | None = None) -> tuple[Any, ...]:
    """Returns the operation's arguments, with a random gradient to the code."""
    patches = oracle.projections(case)[0].shape
    return case.selection_arguments(torch.randn(patches, generator=generator), width)


def assert_gradient(arguments: tuple[Any, ...], case: Case) -> Tensor:
    """Compares the backend's gradient with the reference's, and returns it."""
    actual = run("selection_backward", *arguments)
    oracle.assert_same_selection_gradient(actual, case, arguments[0], arguments[7])
    return actual
