"""What counts as the same result of two backends, and plain arithmetic for the tests to compare with.

Draws must be identical. Selection and dead zone may differ only where a projection lies within
K * 2^-23 * sum |x| |d| of the boundary, K = C n n; values and gradients to 1e-5 of the largest reference magnitude.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroae import SparseCode
from neuroae.kernels import reference
from neuroae.kernels.ops import used_slots
from strategies import Case, Code

TOLERANCE = 1e-5
ROUNDING = 2.0**-23
# The relative error of a projection in float32.
PROJECTION_ERROR = 3e-7


def assert_close(
    actual: Tensor, expected: Tensor, name: str, terms: Tensor | None = None, rounding: float = ROUNDING
) -> None:
    """Compares to 1e-5 of the largest expected magnitude, so zeros only match zeros.

    Args:
        name: The tensor's name in messages.
        terms: The same sums with all terms positive. Where even the largest number is small by cancellation, an error
            of ``rounding`` times the largest of these is allowed.
        rounding: Relative error, by default float32's.
    """
    assert actual.dtype == expected.dtype, f"{name} has dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{name} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    allowed = slack(expected, terms, rounding)
    error = (actual.double() - expected.double()).abs()
    worst = int(error.argmax())
    assert error.flatten()[worst] <= allowed, (
        f"{name} is {actual.flatten()[worst]:.9g} at {unravel(worst, expected)}, expected "
        f"{expected.flatten()[worst]:.9g} to {allowed:.3g}"
    )


def assert_agrees(
    operation: Callable[..., Any],
    oracle: Callable[..., Any],
    arguments: tuple[Any, ...],
    rounding: float = ROUNDING,
) -> None:
    """Compares an operation's result, one tensor or several, with the oracle's on the same arguments."""
    magnitudes = (x.abs() if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments)
    results = operation(*arguments), oracle(*arguments), oracle(*magnitudes)
    for part, (actual, expected, terms) in enumerate(zip(*map(as_tuple, results), strict=True)):
        assert_close(actual, expected, f"{oracle.__name__}, result {part},", terms, rounding)


def slack(expected: Tensor, terms: Tensor | None, rounding: float = ROUNDING) -> float:
    largest = TOLERANCE * expected.abs().max().item()
    return largest if terms is None else max(largest, rounding * terms.max().item())


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def assert_identical(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], names: tuple[str, ...]) -> None:
    """Compares dtypes, shapes and all bits of numbers; 0 and -0 are equal."""
    for name, left, right in zip(names, actual, expected, strict=True):
        assert left.dtype == right.dtype, f"{name} has dtype {left.dtype}, expected {right.dtype}"
        assert left.shape == right.shape, f"{name} has shape {tuple(left.shape)}, expected {tuple(right.shape)}"
        if not torch.equal(left, right):
            place = unravel(int((left != right).flatten().int().argmax()), left)
            raise AssertionError(f"{name} is {left[place]} at {place}, expected {right[place]}")


def assert_identical_codes(actual: Code, expected: Code) -> None:
    """Compares all bits of two codes' survivors. Unused slots hold anything."""
    assert_identical(completed(actual), completed(expected), ("index", "value", "projection", "count"))


def completed(code: Code) -> Code:
    """Returns a code with -1, 0 and 0 in the unused slots, which kernels do not write."""
    index, value, projection, count = code
    unused = ~used_slots(count, index.shape[-1])
    return index.masked_fill(unused, -1), value.masked_fill(unused, 0), projection.masked_fill(unused, 0), count


def assert_same_selection(actual: tuple[Tensor, Tensor], case: Case) -> None:
    """Compares a selection with the reference's: top T of each patch, ascending, with its projections."""
    atom, projection = actual
    expected, _ = reference.select(*case.select_arguments())
    assert (atom.dtype, atom.shape) == (torch.int16, expected.shape)
    assert (atom.long().diff(dim=-1) > 0).all(), "selected atoms do not ascend"
    count = len(case.atoms)
    assert_differences_near_boundary(members(atom, count) != members(expected, count), case)
    exact, terms = projections(case)
    assert_close(projection, exact.gather(-1, atom.long()).float(), "projection", terms)


def assert_same_code(actual: Code, case: Case, realization: int) -> None:
    """Compares a code of one realization with the reference's."""
    count = len(case.atoms)
    actual = completed(actual)
    assert_well_formed(actual, count)
    index, value, projection, _ = actual
    expected, *_ = reference.encode(*case.encode_arguments(realization))
    assert_differences_near_boundary(members(index, count) != members(expected, count), case)

    exact, terms = projections(case)
    used, slot = index >= 0, index.long().clamp_min(0)
    a = exact.gather(-1, slot).where(used, 0.0)
    assert_close(projection, a.float(), "projection", terms)

    levels = case.norms[slot], case.dead_zone[slot], case.quantize, case.signed
    implied = reference.activate(projection, *levels).where(used, 0.0)
    assert torch.equal(value, implied), (
        f"value does not follow from the code's projection at {first(value != implied)}"
    )
    if case.quantize:
        exact_value = reference.activate(a.float(), *levels).where(used, 0.0)
        near_dead_zone = (a.abs() - levels[1].double()).abs() <= tolerance(case, terms).gather(-1, slot)
        unexplained = (value != exact_value) & ~near_dead_zone
        assert not unexplained.any(), f"value differs at {first(unexplained)} although the dead zone is far"


def assert_same_selection_gradient(actual: Tensor, case: Case, grad_code: Tensor, width: float) -> None:
    """Compares an image gradient through the selection with the reference's.

    Float32 rounds projections, and the logistic function amplifies this rounding more the smaller its width is.
    """
    expected = reference.selection_backward(*case.selection_arguments(grad_code, width))
    if not len(case.images):
        assert actual.shape == expected.shape
        return
    tolerance = TOLERANCE + PROJECTION_ERROR / width
    terms = ROUNDING * selection_terms(case, grad_code, width)
    allowed = (tolerance * expected.abs()).max().maximum(terms.max())
    assert_close(actual, expected, "image gradient", allowed, rounding=1.0)


def selection_terms(case: Case, grad_code: Tensor, width: float) -> Tensor:
    """Returns the gradient's sums with all terms positive: the moving cut may cancel nearly everything."""
    magnitudes = projections(case)[0].abs()
    selects_all = case.top_t == len(case.atoms)
    ordered = magnitudes.sort(-1, descending=True).values
    cut = case.dead_zone if selects_all else ordered[..., case.top_t - 1 : case.top_t + 1].mean(-1, keepdim=True)
    close = torch.cosh((magnitudes - cut) / (2 * width)) ** -2 / 4
    if case.quantize and not selects_all:
        close = close * (magnitudes >= case.dead_zone)
    weighted = close * (case.norms if case.quantize else magnitudes) * grad_code.abs()
    if not selects_all:
        share = weighted.sum(-1, keepdim=True) / close.sum(-1, keepdim=True)
        weighted = weighted + close * share.nan_to_num()
    return F.conv_transpose2d((weighted / width).permute(0, 3, 1, 2), case.atoms.abs().double(), stride=case.stride)


def assert_well_formed(code: Code, num_atoms: int) -> None:
    """Requires ascending atoms in the first ``count`` slots, and -1, 0 and 0 after them."""
    index, value, projection, count = code
    assert [tensor.dtype for tensor in code] == [torch.int16, torch.float32, torch.float32, torch.int32]
    assert value.shape == projection.shape == index.shape
    assert count.shape == index.shape[:-1]
    used = used_slots(count, index.shape[-1])
    assert ((index >= 0) == used).all(), "count does not say which slots are used"
    assert (index[used] < num_atoms).all()
    assert (index[~used] == -1).all()
    assert (value[~used] == 0).all()
    assert (projection[~used] == 0).all()
    ascending = index.long().diff(dim=-1) > 0
    assert ascending[used[..., 1:]].all(), "atoms do not ascend"


def assert_differences_near_boundary(differs: Tensor, case: Case) -> None:
    """Requires atoms that are in one code only to be near their patch's top-T boundary.

    Args:
        differs: (B, m_h, m_w, L) bool, marks these atoms.
    """
    if not differs.any():
        return
    exact, terms = projections(case)
    magnitude = exact.abs()
    boundary = magnitude.sort(dim=-1, descending=True).values[..., case.top_t - 1 : case.top_t]
    allowed = tolerance(case, terms).where(differs, 0.0).amax(-1, keepdim=True)
    unexplained = differs & ((magnitude - boundary).abs() > allowed)
    if case.top_t == case.atoms.shape[0]:
        unexplained = differs  # all atoms are selected
    if unexplained.any():
        place = first(unexplained)
        raise AssertionError(
            f"patch {place[:3]}: atom {place[3]} is in one code only, although its projection {exact[place]:.9g} is "
            f"not within {float(allowed[place[:3]]):.3g} of the boundary {float(boundary[place[:3]]):.9g}"
        )


def projections(case: Case) -> tuple[Tensor, Tensor]:
    """Returns projections and their sums of magnitudes, sum |x| |d|: (B, m_h, m_w, L) float64."""
    images, atoms = case.images.double(), case.atoms.double()
    exact = F.conv2d(images, atoms, stride=case.stride)
    terms = F.conv2d(images.abs(), atoms.abs(), stride=case.stride)
    return exact.permute(0, 2, 3, 1), terms.permute(0, 2, 3, 1)


def tolerance(case: Case, terms: Tensor) -> Tensor:
    """Returns how far from a boundary a projection may count as beyond it: K * 2^-23 * sum |x| |d|."""
    return case.atoms[0].numel() * 2.0**-23 * terms


def members(index: Tensor, num_atoms: int) -> Tensor:
    """Returns which atoms are in a code or selection, (..., L) bool."""
    marks = torch.zeros(*index.shape[:-1], num_atoms + 1, dtype=torch.bool)
    marks.scatter_(-1, index.long().where(index >= 0, num_atoms), True)
    return marks[..., :num_atoms]


def assert_rounds_to(
    actual: Tensor, expected: Tensor, name: str, terms: Tensor | None = None, rounding: float = ROUNDING
) -> None:
    """Requires ``actual`` to be a rounding, to its lower precision, of a number close to the float32 ``expected``."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    allowed = slack(expected, terms, rounding)
    low, high = (expected - allowed).to(actual.dtype), (expected + allowed).to(actual.dtype)
    outside = (actual < low) | (actual > high) | actual.isnan()
    assert not outside.any(), (
        f"{name} is {actual[first(outside)]} at {first(outside)}, expected {expected[first(outside)]}"
    )


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Computes Philox4x32-10 with Python's integers."""
    mask = 2**32 - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & mask, (left >> 32) ^ c3 ^ k1, left & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def is_kept(seed: int, image_id: int, realization: int, patch: int, atom: int, dropout_p: float) -> bool:
    """Returns whether a coefficient survives dropout, by the definition of the draw."""
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    word = philox((atom // 4, patch, realization, image_id), key)[atom % 4]
    return word >= int(dropout_p * 2**32)


def first(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def unravel(position: int, tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(position), tensor.shape))


def same_code(left: SparseCode, right: SparseCode) -> bool:
    """Returns whether two codes agree to the bit."""
    names = ("index", "value", "projection", "count")
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in names)
