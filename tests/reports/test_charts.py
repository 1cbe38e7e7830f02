"""The charts of a report show the numbers that they are made from."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from neuroae.evaluation.statistics import Estimate
from neuroae.reports import charts
from neuroae.reports.charts import Sweep, SweepPoint
from neuroae.reports.tables import AttackRow

ESTIMATES = [Estimate(0.5, 0.2, 0.9), Estimate(0.3, 0.25, 0.6)]
ENDS = [(0.2, 0.9), (0.25, 0.6)]


@pytest.fixture(autouse=True)
def _figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes charts return figures instead of SVG."""
    monkeypatch.setattr(charts, "svg", lambda figure: figure)


def test_intervals_go_from_low_to_high() -> None:
    axis = Figure().subplots()
    charts.draw_intervals(axis, ESTIMATES, [1.0, 2.0], "some", "black", "o")
    (bars,) = axis.collections
    for segment, (low, high), height in zip(bars.get_segments(), ENDS, (1.0, 2.0), strict=True):
        np.testing.assert_allclose(segment, [(low, height), (high, height)])


def test_a_sweep_has_each_accuracy_over_its_setting() -> None:
    points = [SweepPoint(value, estimate) for value, estimate in zip((0.1, 0.4), ESTIMATES, strict=True)]
    figure = charts.sweep_chart(Sweep("epsilon", {"PGD": points}))
    (axis,) = figure.axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [(0.1, 0.5), (0.4, 0.3)])
    (bars,) = axis.collections
    for segment, ends, value in zip(bars.get_segments(), ENDS, (0.1, 0.4), strict=True):
        np.testing.assert_allclose(segment, [(value, end) for end in ends])


def test_persistence_and_votes_have_a_panel_each() -> None:
    persistent, majority = {"PGD": [0.8, 0.6, 0.5]}, {"PGD": [0.8, 0.85, 0.9]}
    upper, lower = charts.draws_chart(persistent, majority).axes
    for axis, expected in ((upper, persistent), (lower, majority)):
        np.testing.assert_allclose(axis.lines[0].get_xydata(), list(enumerate(expected["PGD"], 1)))
    assert upper.get_title(loc="left") != lower.get_title(loc="left")


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ((1, 5, 20, 40), ["1", "5", "20", "40"]),
        ((9, 10, 11, 12), ["9", "10", "11", "12"]),
        ((1, 100, 101, 102, 1000), ["1", "100", "", "", "1000"]),
        ((7,), ["7"]),
    ],
    ids=str,
)
def test_labels_that_would_touch_are_left_out(counts: tuple[float, ...], labels: list[str]) -> None:
    assert charts.labels_apart(counts) == labels


def test_a_long_name_takes_two_lines() -> None:
    estimate = Estimate(0.5, 0.4, 0.6)
    row = AttackRow.__new__(AttackRow)
    fields = {"attack": "PGD of a name that is long, " * 5, "draws": 1, "vote": estimate, "draw": estimate}
    for name, value in fields.items():
        object.__setattr__(row, name, value)
    (axis,) = charts.accuracy_chart([row]).axes
    (title,) = [text for text in axis.texts if "PGD" in text.get_text()]
    assert title.get_text().count("\n") == 1
    assert title.get_fontsize() > 5.5
