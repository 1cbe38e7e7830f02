"""The encoder's operations of the compiled backend, compared with the reference over drawn shapes and settings."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import cut_rows
import oracle
from dictionaries import unit_atoms
from neuroae import kernels
from neuroae.kernels import reference
from neuroae.kernels.ops import SURROGATES
from strategies import Case, Code, cases, clear_cases, exact_cases, generators

CODE = ("index", "value", "projection", "count")
SELECTION = ("atom", "projection")
SIGMA = 0.4


def test_every_operation_runs_on_the_compiled_backend(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    name = kernels.backend_name("cpu")
    assert name == ("triton" if kernels.is_interpreting() else "cpu")
    assert kernels.load_backend(name) is backend

    class Called(Exception):
        """Raised by an operation of the backend."""

    def raise_called(*_: object) -> None:
        raise Called

    case = small_case()
    code = reference.encode(*case.encode_arguments(0))
    calls = {
        "select": case.select_arguments(),
        "draw": case.draw_arguments(reference.select(*case.select_arguments())),
        "encode": case.encode_arguments(0),
        "encode_backward": backward_arguments(case, code, code[1], 2, "smooth"),
        "selection_backward": case.selection_arguments(torch.rand(*code[3].shape, 40), 0.1),
        "conv_transpose": (code[0], code[1], code[3], case.atoms, None, [2, 2], [0, 0], [0, 0], False),
        "conv_transpose_backward_value": (case.images, None, code[0], code[3], case.atoms, [2, 2], [0, 0]),
        "conv_transpose_backward_weight": (case.images, None, *code[:2], code[3], case.atoms, [2, 2], [0, 0]),
    }
    calls |= dense_calls()
    assert set(calls) == set(kernels.OPERATIONS)
    for operation, arguments in calls.items():
        monkeypatch.setattr(backend, operation, raise_called)
        with pytest.raises(Called):
            getattr(torch.ops.neuroae, operation)(*arguments)


@pytest.mark.parametrize(("old", "new"), kernels.RENAMED.items())
def test_names_of_version_0_1_warn(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"neuroae.kernels.{old} is now {new}"):
        assert getattr(kernels, old) is getattr(kernels, new)


def dense_calls() -> dict[str, tuple[Any, ...]]:
    dense, grad, weight = torch.rand(2, 3, 4, 5), torch.rand(2, 6, 6, 7), torch.rand(3, 6, 3, 3)
    return {
        "dense_conv_transpose": (dense, weight, None, False),
        "dense_conv_transpose_backward_input": (grad, None, weight),
        "dense_conv_transpose_backward_weight": (grad, None, dense),
    }


@given(case=cases())
def test_select(backend: ModuleType, case: Case) -> None:
    oracle.assert_same_selection(backend.select(*case.select_arguments()), case)


@given(case=cases())
def test_draw(backend: ModuleType, case: Case) -> None:
    """A draw from a selection rounds nothing: all bits are the same."""
    arguments = case.draw_arguments(reference.select(*case.select_arguments()))
    oracle.assert_identical_codes(backend.draw(*arguments), reference.draw(*arguments))


@given(case=cases())
def test_encode(backend: ModuleType, case: Case) -> None:
    oracle.assert_same_code(backend.encode(*case.encode_arguments(case.start)), case, case.start)


@given(case=cases())
def test_encode_is_select_then_draw(backend: ModuleType, case: Case) -> None:
    drawn = backend.draw(*case.draw_arguments(backend.select(*case.select_arguments())))
    for realization in range(case.count):
        rows = slice(realization * len(case.images), (realization + 1) * len(case.images))
        fused = backend.encode(*case.encode_arguments(case.start + realization))
        oracle.assert_identical_codes(fused, tuple(tensor[rows] for tensor in drawn))


@given(case=exact_cases())
def test_ties_and_the_edge_of_the_dead_zone(backend: ModuleType, case: Case) -> None:
    """Where all projections are exact, selections and codes are the same to the bit."""
    selection = reference.select(*case.select_arguments())
    oracle.assert_identical(backend.select(*case.select_arguments()), selection, SELECTION)
    expected = reference.encode(*case.encode_arguments(case.start))
    oracle.assert_identical_codes(backend.encode(*case.encode_arguments(case.start)), expected)


@pytest.mark.parametrize("atoms", cut_rows.ATOMS)
@pytest.mark.parametrize("kind", cut_rows.KINDS)
def test_the_cut_between_the_closest_magnitudes(backend: ModuleType, kind: str, atoms: int) -> None:
    rows = cut_rows.cut_rows(kind, atoms)
    for top_t in cut_rows.counts(atoms):
        arguments = cut_rows.select_arguments(rows, top_t)
        cut_rows.assert_cut(backend.select(*arguments), rows, top_t)
        levels = torch.ones(atoms), torch.zeros(atoms), torch.tensor(0), torch.tensor([0])
        index, _, projection, count = backend.encode(*arguments[:2], *levels, 1, top_t, 0, 0.0, True, True)
        cut_rows.assert_cut((index, projection), rows, top_t)
        assert (count == top_t).all()


@given(case=cases(), surrogate=st.sampled_from(SURROGATES), separate=st.booleans(), generator=generators())
def test_encode_backward(
    backend: ModuleType, case: Case, surrogate: str, separate: bool, generator: torch.Generator
) -> None:
    """The sum over realizations, or the gradient of each realization."""
    code = reference.draw(*case.draw_arguments(reference.select(*case.select_arguments())))
    grad = torch.randn(code[1].shape, generator=generator)
    num_images = len(case.images) * (case.count if separate else 1)
    arguments = backward_arguments(case, code, grad, num_images, surrogate)
    oracle.assert_agrees(backend.encode_backward, reference.encode_backward, arguments)


WIDTHS = (0.02, 0.1, 1.0)


@given(case=clear_cases(), width=st.sampled_from(WIDTHS), generator=generators())
def test_selection_backward(backend: ModuleType, case: Case, width: float, generator: torch.Generator) -> None:
    grad_code = random_grad_code(case, generator)
    actual = backend.selection_backward(*case.selection_arguments(grad_code, width))
    oracle.assert_same_selection_gradient(actual, case, grad_code, width)


@given(case=exact_cases(), width=st.sampled_from(WIDTHS), generator=generators())
def test_selection_backward_with_ties_at_the_cut(
    backend: ModuleType, case: Case, width: float, generator: torch.Generator
) -> None:
    grad_code = random_grad_code(case, generator)
    actual = backend.selection_backward(*case.selection_arguments(grad_code, width))
    oracle.assert_same_selection_gradient(actual, case, grad_code, width)


def random_grad_code(case: Case, generator: torch.Generator) -> Tensor:
    atom, _ = reference.select(*case.select_arguments())
    return torch.randn(*atom.shape[:3], len(case.atoms), generator=generator)


def test_a_selection_gradient_does_not_depend_on_the_batch(backend: ModuleType) -> None:
    if kernels.is_interpreting():
        pytest.skip("in the interpreter NumPy's products round by place; see test_triton_selection.py")
    case = small_case(images=7, atoms=257, top_t=30)
    grad_code = random_grad_code(case, torch.Generator().manual_seed(1))
    together = backend.selection_backward(*case.selection_arguments(grad_code, 0.05))
    for rows in (torch.tensor([3, 6, 0, 2]), *torch.arange(7).split(1)):
        part = replace(case, images=case.images[rows])
        alone = backend.selection_backward(*part.selection_arguments(grad_code[rows], 0.05))
        oracle.assert_identical((alone,), (together[rows],), ("image gradient",))


def test_nan_stays_in_its_image(backend: ModuleType) -> None:
    case = small_case()
    grad_code = random_grad_code(case, torch.Generator().manual_seed(1))
    expected = backend.selection_backward(*case.selection_arguments(grad_code, 0.05))
    grad_code[0, 1, 2, 3] = torch.nan
    case.images[0] = 0  # where no projection has a sign
    actual = backend.selection_backward(*case.selection_arguments(grad_code, 0.05))
    assert actual[0].isnan().any()
    assert torch.equal(actual[1], expected[1])


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_survivors_in_the_dead_zone_pass_the_gradient(backend: ModuleType, surrogate: str) -> None:
    case = small_case()
    case.dead_zone = torch.full_like(case.dead_zone, 10.0)
    code = oracle.completed(backend.encode(*case.encode_arguments(0)))
    assert code[1].abs().max() == 0
    assert code[3].sum() > 0
    arguments = backward_arguments(case, code, torch.ones_like(code[1]), 2, surrogate)
    expected = reference.encode_backward(*arguments)
    assert expected.abs().max() > 0
    oracle.assert_close(backend.encode_backward(*arguments), expected, "image gradient")


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "every other", "expanded"])
def test_memory_order_does_not_matter(backend: ModuleType, layout: str) -> None:
    case = small_case()
    case.images[:] = case.images[:1, :1]
    expected = backend.encode(*case.encode_arguments(0))
    case.images = {
        "channels_last": case.images.contiguous(memory_format=torch.channels_last),
        "transposed": case.images.transpose(2, 3).contiguous().transpose(2, 3),
        "every other": case.images.repeat_interleave(2, dim=3)[..., ::2],
        "expanded": case.images[:1, :1].expand(case.images.shape),
    }[layout]
    assert not case.images.is_contiguous()
    oracle.assert_identical_codes(backend.encode(*case.encode_arguments(0)), expected)


@pytest.mark.parametrize("top_t", [1, 30, 257], ids=["T=1", "T=30", "T=L"])
def test_a_code_does_not_depend_on_the_batch(backend: ModuleType, top_t: int) -> None:
    """An image has the same code alone, in a batch, and in another order."""
    case = small_case(images=7, atoms=257, top_t=top_t)
    together = backend.encode(*case.encode_arguments(3))
    order = torch.tensor([3, 6, 0, 2])
    for rows in (order, *torch.arange(7).split(1)):
        part = small_case(images=7, atoms=257, top_t=top_t)
        part.images, part.image_ids = case.images[rows], case.image_ids[rows]
        alone = backend.encode(*part.encode_arguments(3))
        oracle.assert_identical_codes(alone, tuple(tensor[rows] for tensor in together))


def test_threads_do_not_change_a_bit(backend: ModuleType) -> None:
    case = small_case(images=5, atoms=257, top_t=30)

    def results() -> tuple[Tensor, ...]:
        selection = backend.select(*case.select_arguments())
        drawn = backend.draw(*case.draw_arguments(selection))
        code = backend.encode(*case.encode_arguments(0))
        total = backend.encode_backward(*backward_arguments(case, drawn, drawn[2], 5, "smooth"))
        separate = backend.encode_backward(*backward_arguments(case, drawn, drawn[2], 5 * case.count, "smooth"))
        grad_code = random_grad_code(case, torch.Generator().manual_seed(1))
        through = backend.selection_backward(*case.selection_arguments(grad_code, 0.05))
        codes = (*oracle.completed(drawn), *oracle.completed(code))
        return *selection, *codes, total, separate, through

    expected = results()
    torch.set_num_threads(2)
    names = (*SELECTION, *CODE, *CODE, "summed gradient", "gradients", "selection gradient")
    oracle.assert_identical(results(), expected, names)


@pytest.mark.parametrize("distance", [0, 1], ids=["at the threshold", "below the threshold"])
def test_words_at_the_threshold_survive(backend: ModuleType, distance: int) -> None:
    """The threshold is the word of one coefficient of the first patch, or the next number."""
    case = small_case()
    selection = reference.select(*case.select_arguments())
    atom = int(selection[0][0, 0, 0, 4])
    word = oracle.philox((atom // 4, 0, case.start, 100), (99, 0))[atom % 4]
    case.dropout_p = (word + distance) / 2**32
    index, *_ = oracle.completed(backend.draw(*case.draw_arguments(selection)))
    assert (atom in index[0, 0, 0]) == (distance == 0)


def test_calls_from_several_threads_at_once(backend: ModuleType) -> None:
    torch.set_num_threads(2)
    arguments = small_case(images=5, atoms=257, top_t=30).encode_arguments(0)
    expected = backend.encode(*arguments)
    with ThreadPoolExecutor(4) as pool:
        for code in pool.map(lambda _: backend.encode(*arguments), range(40)):
            oracle.assert_identical_codes(code, expected)


def test_the_largest_dictionary(backend: ModuleType) -> None:
    """32,767 atoms, as many as int16 can number; the last ones are selected, by magnitude and with their sign."""
    case = small_case()
    case.atoms = torch.zeros(32_767, 1, 2, 2)
    case.atoms[:-20, 0, 0, 0], case.atoms[-20:, 0, 1, 1] = 1.0, -1.0
    case.norms = case.atoms.abs().sum((1, 2, 3))
    case.dead_zone = 0.1 * case.norms
    case.images = torch.tensor([[0.25, 0.0], [0.0, 0.5]]).repeat(2, 1, 4, 5)
    arguments = case.encode_arguments(0)
    code = reference.encode(*arguments)
    assert oracle.completed(code)[0].max() > 32_750
    oracle.assert_identical_codes(backend.encode(*arguments), code)


@pytest.mark.parametrize(
    ("pixel", "message"), [(1.1, "from 0.* to 1.1"), (-0.01, "from -0.01"), (float("nan"), ".*nan")], ids=str
)
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 2, 8, 10)], ids=["first pixel", "last pixel, of no patch"])
def test_pixels_out_of_range_are_refused(
    backend: ModuleType, place: tuple[int, ...], pixel: float, message: str
) -> None:
    case = small_case()
    case.images[place] = pixel
    for operation, arguments in (("select", case.select_arguments()), ("encode", case.encode_arguments(0))):
        with pytest.raises(ValueError, match=f"images holds values {message}.*expected pixels in"):
            getattr(backend, operation)(*arguments)


@pytest.mark.parametrize("place", [(20, 0, 0, 0), (30, 0, 0, 0), (39, 2, 31, 31)], ids=["middle", "later", "last"])
def test_one_wrong_pixel_of_a_large_batch_is_refused(backend: ModuleType, place: tuple[int, ...]) -> None:
    """The library checks large batches in parts."""
    case = replace(small_case(images=40), images=torch.rand(40, 3, 32, 32))
    case.images[place] = torch.nan
    for operation, arguments in (("select", case.select_arguments()), ("encode", case.encode_arguments(0))):
        with pytest.raises(ValueError, match=r"images holds values .*nan"):
            getattr(backend, operation)(*arguments)


@pytest.mark.parametrize("image_id", [-1, 2**32])
def test_image_ids_that_do_not_fit_the_counter_are_refused(backend: ModuleType, image_id: int) -> None:
    case = small_case()
    case.image_ids[1] = image_id
    selection = reference.select(*case.select_arguments())
    for operation, arguments in (("draw", case.draw_arguments(selection)), ("encode", case.encode_arguments(0))):
        with pytest.raises(ValueError, match="image_ids"):
            getattr(backend, operation)(*arguments)


@pytest.mark.parametrize("atom", [40, 32_767, -1, -32_768], ids=lambda atom: f"atom {atom}")
def test_a_selection_of_atoms_that_do_not_exist_is_refused(backend: ModuleType, atom: int) -> None:
    case = small_case()
    selected, projection = reference.select(*case.select_arguments())
    selected[1, 2, 3, 9] = atom
    with pytest.raises(ValueError, match=f"atom.* {atom}"):
        backend.draw(*case.draw_arguments((selected, projection)))


@pytest.mark.parametrize("atom", [40, 32_767, -1], ids=lambda atom: f"atom {atom}")
def test_a_gradient_of_atoms_that_do_not_exist_is_refused(backend: ModuleType, atom: int) -> None:
    case = small_case()
    code = reference.encode(*case.encode_arguments(0))
    code[0][1, 2, 3, int(code[3][1, 2, 3]) - 1] = atom
    with pytest.raises(ValueError, match=f"index names atom {atom}, expected 0 to 39 in the used slots"):
        backend.encode_backward(*backward_arguments(case, code, code[1], 2, "smooth"))


def small_case(images: int = 2, atoms: int = 40, top_t: int = 10) -> Case:
    """Returns rectangular images with a row and a column without patches; half of the coefficients are dropped."""
    torch.manual_seed(5)
    dictionary = unit_atoms(atoms, 3, 4)
    norms = dictionary.abs().sum((1, 2, 3))
    return Case(
        torch.rand(images, 3, 9, 11),
        dictionary,
        norms,
        0.1 * norms,
        stride=2,
        top_t=top_t,
        dropout_p=0.5,
        quantize=True,
        signed=True,
        seed=torch.tensor(99),
        image_ids=torch.arange(100, 100 + images),
        start=1,
        count=3,
    )


def backward_arguments(case: Case, code: Code, grad: Tensor, num_images: int, surrogate: str) -> tuple[Any, ...]:
    index, _, projection, count = code
    levels = (case.atoms, case.norms, case.dead_zone, *case.images.shape[2:], case.stride)
    return grad, index, projection, count, *levels, num_images, surrogate, SIGMA, case.quantize, case.signed
