"""The Triton encoder, compared with the reference: on a GPU, or in ``test_triton_interpreter.py``."""

import importlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cut_rows
import oracle
from dictionaries import unit_atoms
from neuroae.kernels import reference
from neuroae.kernels.ops import SURROGATES, used_slots
from strategies import Case, Code, cases, exact_cases, generators, image_shapes, pictures, with_settings
from triton_device import MARKS, examples, run

pytestmark = MARKS

SELECTION = ("atom", "projection")
SIGMA = 0.4
EXAMPLES = examples(10)


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_select(case: Case) -> None:
    oracle.assert_same_selection(run("select", *case.select_arguments()), case)


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_draw(case: Case) -> None:
    """A draw from a selection rounds nothing: all bits are the same."""
    arguments = case.draw_arguments(reference.select(*case.select_arguments()))
    oracle.assert_identical_codes(run("draw", *arguments), reference.draw(*arguments))


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_encode(case: Case) -> None:
    oracle.assert_same_code(run("encode", *case.encode_arguments(case.start)), case, case.start)


@settings(max_examples=EXAMPLES // 2)
@given(case=cases())
def test_encode_is_select_then_draw(case: Case) -> None:
    drawn = run("draw", *case.draw_arguments(run("select", *case.select_arguments())))
    for realization in range(case.count):
        rows = slice(realization * len(case.images), (realization + 1) * len(case.images))
        fused = run("encode", *case.encode_arguments(case.start + realization))
        oracle.assert_identical_codes(fused, tuple(tensor[rows] for tensor in drawn))


@settings(max_examples=EXAMPLES)
@given(case=exact_cases())
def test_ties_and_the_edge_of_the_dead_zone(case: Case) -> None:
    """Where all projections are exact, selections and codes are the same to the bit."""
    selection = reference.select(*case.select_arguments())
    oracle.assert_identical(run("select", *case.select_arguments()), selection, SELECTION)
    expected = reference.encode(*case.encode_arguments(case.start))
    oracle.assert_identical_codes(run("encode", *case.encode_arguments(case.start)), expected)


@pytest.mark.parametrize("atoms", [33, 129, 1100], ids=["33", "129", "1100, too many for registers"])
@pytest.mark.parametrize("kind", cut_rows.KINDS)
def test_the_cut_between_the_closest_magnitudes(kind: str, atoms: int) -> None:
    rows = cut_rows.cut_rows(kind, atoms)
    for top_t in (1, atoms // 2 + 1, atoms):
        arguments = cut_rows.select_arguments(rows, top_t)
        cut_rows.assert_cut(run("select", *arguments), rows, top_t)


@pytest.mark.parametrize(
    ("top_t", "room"),
    [(1, 9), (300, 9), (1100, 9), (300, 24)],
    ids=["T=1, a buffer for 9 patches", "T=300, a buffer for 9 patches", "T=L, a buffer for 9 patches", "T=300"],
)
def test_a_dictionary_too_large_for_registers(top_t: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are exact, so ties are ties. There are 24 patches, so the smaller buffer is filled three times."""
    monkeypatch.setattr(importlib.import_module("neuroae.kernels.triton.select"), "BUFFER_NUMBERS", room * 1100)
    atoms = torch.randint(-1, 2, (1100, 1, 2, 2), generator=torch.Generator().manual_seed(0)) / 2
    case = replace(small_case(), images=torch.arange(2 * 30).reshape(2, 1, 5, 6) / 64, atoms=atoms.float())
    case = replace(case, stride=1, top_t=top_t, norms=atoms.abs().sum((1, 2, 3)), dead_zone=torch.full((1100,), 0.25))
    case.images = case.images[:, :, :4, :5]
    selection = reference.select(*case.select_arguments())
    oracle.assert_identical(run("select", *case.select_arguments()), selection, SELECTION)
    expected = reference.encode(*case.encode_arguments(4))
    oracle.assert_identical_codes(run("encode", *case.encode_arguments(4)), expected)


def test_warps_of_64_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On AMD's GPUs a small dictionary goes through the buffer too."""
    monkeypatch.setattr(importlib.import_module("neuroae.kernels.triton.tiles"), "THREADS", 64)
    case = small_case()
    oracle.assert_same_selection(run("select", *case.select_arguments()), case)
    oracle.assert_same_code(run("encode", *case.encode_arguments(0)), case, 0)


@pytest.mark.parametrize("dropout_p", [0.0, 0.999, 1 - 2**-32], ids=["p=0", "p=0.999", "p=1-2^-32"])
@pytest.mark.parametrize("top_t", [1, 40], ids=["T=1", "T=L"])
def test_the_ends_of_dropout(dropout_p: float, top_t: int) -> None:
    case = replace(small_case(), dropout_p=dropout_p, top_t=top_t, seed=torch.tensor(-(2**63) + 7))
    code = run("encode", *case.encode_arguments(2**32 - 1))
    oracle.assert_same_code(code, case, 2**32 - 1)
    if dropout_p == 0:
        assert (code[3] == top_t).all()


@pytest.mark.parametrize("operation", ["draw", "encode"])
def test_only_survivors_are_written(operation: str) -> None:
    """Unused slots keep what ``tests/conftest.py`` poisons memory with: 95% of a code costs no writes."""
    case = small_case()
    selection = reference.select(*case.select_arguments())
    arguments = case.draw_arguments(selection) if operation == "draw" else case.encode_arguments(0)
    index, value, projection, count = run(operation, *arguments)
    unused = ~used_slots(count, index.shape[-1])
    assert unused.any()
    assert (index[unused] == torch.iinfo(torch.int16).max - 2).all()
    assert value[unused].isnan().all()
    assert projection[unused].isnan().all()


def test_a_black_image_selects_the_lowest_atoms() -> None:
    case = replace(small_case(), dropout_p=0.0)
    case.images[0] = 0
    index, _, projection, _ = run("encode", *case.encode_arguments(0))
    assert (index[0] == torch.arange(10)).all()
    assert (projection[0] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e-30], ids=["up to 6", "down to 1e-30"])
def test_projections_far_from_one(scale: float) -> None:
    """The search covers all exponents: projections of a white image are far above 1, of a dark image far below."""
    case = small_case()
    case.atoms = case.atoms.abs()
    case.images[:] = scale
    code = run("encode", *case.encode_arguments(0))
    oracle.assert_same_code(code, case, 0)
    assert oracle.completed(code)[2].max() > 5 * scale


def test_an_empty_batch() -> None:
    case = replace(small_case(), images=torch.empty(0, 3, 9, 11), image_ids=torch.empty(0, dtype=torch.int64))
    code = run("encode", *case.encode_arguments(0))
    assert [tuple(tensor.shape) for tensor in code] == [(0, 3, 4, 10)] * 3 + [(0, 3, 4)]
    drawn = run("draw", *case.draw_arguments(run("select", *case.select_arguments())))
    assert drawn[0].shape == (0, 3, 4, 10)
    assert run("encode_backward", *backward_arguments(case, code, code[1], 0, "smooth")).shape == (0, 3, 9, 11)


def test_a_code_does_not_depend_on_the_batch() -> None:
    """An image has the same code alone, in a batch, and in another order."""
    case = small_case(images=3)
    together = run("encode", *case.encode_arguments(3))
    for rows in (torch.tensor([2, 0]), torch.tensor([1])):
        part = replace(case, images=case.images[rows], image_ids=case.image_ids[rows])
        alone = run("encode", *part.encode_arguments(3))
        oracle.assert_identical_codes(alone, tuple(tensor[rows] for tensor in together))


@st.composite
def gradient_cases(draw: st.DrawFn) -> Case:
    """Cases with few survivors, since the interpreter processes them one by one."""
    channels, patch, count = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    generator = draw(generators())
    atoms = torch.randn(count, channels, patch, patch, generator=generator)
    atoms /= atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    stride, (_, *sides) = draw(image_shapes(channels, patch))
    images = draw(pictures((draw(st.integers(1, 2)), *sides), generator))
    return draw(with_settings(images, atoms, stride, draw(st.sampled_from((0.0, 0.1, 0.3)))))


@settings(max_examples=EXAMPLES)
@given(case=gradient_cases(), surrogate=st.sampled_from(SURROGATES), separate=st.booleans(), generator=generators())
def test_encode_backward(case: Case, surrogate: str, separate: bool, generator: torch.Generator) -> None:
    """The sum over realizations, or the gradient of each realization."""
    code = reference.draw(*case.draw_arguments(reference.select(*case.select_arguments())))
    grad = torch.randn(code[1].shape, generator=generator)
    num_images = len(case.images) * (case.count if separate else 1)
    arguments = backward_arguments(case, code, grad, num_images, surrogate)
    oracle.assert_close(run("encode_backward", *arguments), reference.encode_backward(*arguments), "image gradient")


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_survivors_in_the_dead_zone_pass_the_gradient(surrogate: str, signed: bool) -> None:
    case = replace(small_case(), dead_zone=torch.full((40,), 10.0), signed=signed)
    code = oracle.completed(run("encode", *case.encode_arguments(0)))
    assert code[1].abs().max() == 0
    assert (code[2] < 0).any()
    arguments = backward_arguments(case, code, torch.ones_like(code[1]), 2, surrogate)
    expected = reference.encode_backward(*arguments)
    assert expected.abs().max() > 0
    oracle.assert_close(run("encode_backward", *arguments), expected, "image gradient")


def test_a_pixel_under_many_patches() -> None:
    """8 x 8 patches at all pixels, without dropout."""
    case = replace(small_case(), images=torch.rand(1, 1, 10, 11), atoms=unit_atoms(3, 1, 8), stride=1, top_t=3)
    case = replace(
        case, image_ids=torch.tensor([5]), norms=torch.ones(3), dead_zone=torch.full((3,), 0.2), dropout_p=0.0
    )
    code = run("encode", *case.encode_arguments(0))
    arguments = backward_arguments(case, code, torch.randn(code[1].shape), 1, "smooth")
    oracle.assert_close(run("encode_backward", *arguments), reference.encode_backward(*arguments), "image gradient")


def test_pixels_that_no_patch_covers_get_no_gradient() -> None:
    case = small_case()
    code = run("encode", *case.encode_arguments(0))
    grad = run("encode_backward", *backward_arguments(case, code, torch.ones_like(code[1]), 2, "identity"))
    assert (grad[:, :, 8:] == 0).all()
    assert (grad[..., 10:] == 0).all()
    assert (grad[:, :, :8, :10] != 0).any()


def small_case(images: int = 2) -> Case:
    """Returns rectangular images with a row and a column without patches; half of the coefficients are dropped."""
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
        dropout_p=0.5,
        quantize=True,
        signed=True,
        seed=torch.tensor(99),
        image_ids=torch.arange(100, 100 + images),
        start=1,
        count=2,
    )


def backward_arguments(case: Case, code: Code, grad: Tensor, num_images: int, surrogate: str) -> tuple[object, ...]:
    index, _, projection, count = code
    levels = (case.atoms, case.norms, case.dead_zone, *case.images.shape[2:], case.stride)
    return grad, index, projection, count, *levels, num_images, surrogate, SIGMA, case.quantize, case.signed
