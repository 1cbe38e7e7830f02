"""What the charts of a report show: the numbers that they are given, each in its place."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from neuroae.evaluation.statistics import Estimate
from neuroae.reports import charts
from neuroae.reports.sweeps import Sweep, SweepPoint

FOUND = [Estimate(0.5, 0.2, 0.9), Estimate(0.3, 0.25, 0.6)]
ENDS = [(0.2, 0.9), (0.25, 0.6)]


@pytest.fixture(autouse=True)
def _figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts come as figures, before they become SVG."""
    monkeypatch.setattr(charts, "svg", lambda figure: figure)


def test_intervals_go_from_low_to_high() -> None:
    axis = Figure().subplots()
    charts.draw_intervals(axis, FOUND, [1.0, 2.0], "some", "black", "o")
    (bars,) = axis.collections
    for segment, (low, high), height in zip(bars.get_segments(), ENDS, (1.0, 2.0), strict=True):
        np.testing.assert_allclose(segment, [(low, height), (high, height)])


def test_a_sweep_has_each_accuracy_over_its_setting() -> None:
    points = [SweepPoint(value, found) for value, found in zip((0.1, 0.4), FOUND, strict=True)]
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
