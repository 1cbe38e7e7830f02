"""The losses against values computed by hand, one image at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroae.attacks.losses import LOSS_NAMES, LOSSES, dlr, margin

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=8)
CASES = st.lists(LOGITS, min_size=1, max_size=5).map(lambda rows: [row[: min(map(len, rows))] for row in rows])


def by_hand(name: str, row: list[float], label: int, target: int | None) -> float:
    """Returns a loss of one row of logits, computed in plain Python."""
    aimed = label if target is None else target
    others = [value for index, value in enumerate(row) if index != aimed]
    first, _, third, *rest = sorted(row, reverse=True)
    if name == "cross-entropy":
        loss = math.log(sum(math.exp(value) for value in row)) - row[aimed]
        return loss if target is None else -loss
    if name == "margin":
        return max(others) - row[label] if target is None else row[target] - max(others)
    if target is None:
        return (max(others) - row[label]) / (first - third + 1e-12)
    return (row[target] - row[label]) / (first - (third + rest[0]) / 2 + 1e-12)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("name", LOSS_NAMES)
@given(rows=CASES, data=st.data())
def test_losses_are_those_computed_by_hand(
    name: str, targeted: bool, rows: list[list[float]], data: st.DataObject
) -> None:
    classes = st.integers(0, len(rows[0]) - 1)
    labels = data.draw(st.lists(classes, min_size=len(rows), max_size=len(rows)))
    targets = data.draw(st.lists(classes, min_size=len(rows), max_size=len(rows))) if targeted else [None] * len(rows)
    actual = LOSSES[name](
        torch.tensor(rows, dtype=torch.float64), torch.tensor(labels), torch.tensor(targets) if targeted else None
    )
    expected = [by_hand(name, *case) for case in zip(rows, labels, targets, strict=True)]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("logits", "label", "target", "expected"),
    [
        ([5.0, 2.0, 1.0], 0, None, -3.0),
        ([5.0, 2.0, 1.0], 1, None, 3.0),
        ([5.0, 2.0, 1.0], 0, 2, -4.0),
        ([5.0, 2.0, 1.0], 1, 0, 3.0),
    ],
    ids=["right", "fooled", "not the target", "the target"],
)
def test_margin_is_above_zero_where_the_attack_succeeds(
    logits: list[float], label: int, target: int | None, expected: float
) -> None:
    targets = None if target is None else torch.tensor([target])
    assert float(margin(torch.tensor([logits]), torch.tensor([label]), targets)) == expected


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("target", [None, torch.tensor([2])], ids=["untargeted", "targeted"])
def test_dlr_does_not_depend_on_the_scale_of_the_logits(scale: float, target: torch.Tensor | None) -> None:
    logits, label = torch.tensor([[3.0, -1.0, 0.5, 2.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    torch.testing.assert_close(dlr(scale * logits + 7, label, target), dlr(logits, label, target))


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (3, True)], ids=["untargeted", "targeted"])
def test_dlr_of_too_few_classes_is_refused(classes: int, targeted: bool) -> None:
    labels = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"logits has {classes} classes, expected at least {classes + 1}"):
        dlr(torch.zeros(1, classes), labels, labels if targeted else None)
