"""Charts of an evaluation's accuracies, as SVG, and the numbers that they show."""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from statistics import fmean
from textwrap import wrap
from typing import Any, Literal, NamedTuple

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from ..evaluation import CLEAN, Record, Results, Verdict
from ..evaluation.attack import attack_label
from ..evaluation.checks import Threat
from ..evaluation.checks.outcomes import families
from ..evaluation.statistics import Estimate
from .tables import AttackRow


@contextmanager
def default_style() -> Iterator[None]:
    """Draws in matplotlib's own style: the user's configuration may ask for LaTeX or fonts that are missing."""
    with matplotlib.style.context("default"):
        yield


@contextmanager
def dispensable(name: object) -> Iterator[None]:
    """Turns an error in the block, which draws the picture of this name or file, into a warning."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"{name} could not be drawn: {error!r}", stacklevel=3)


LABELS = {
    "epsilon": "epsilon, for pixels in [0, 1]",
    "steps": "steps, N_S",
    "realizations": "realizations a gradient or query, N_E",
}


class SweepPoint(NamedTuple):
    """An attack in a sweep.

    Attributes:
        value: The attack's value of the setting that varies.
        accuracy: The accuracy of the E draws as one vote.
    """

    value: float
    accuracy: Estimate


@dataclass(frozen=True)
class Sweep:
    """Accuracies against one setting.

    Attributes:
        setting: The setting that varies, a key of ``LABELS``.
        lines: Points of growing value, a line for each family of attacks that differ in this setting alone, by the
            family's label.
    """

    setting: str
    lines: Mapping[str, Sequence[SweepPoint]]

    @property
    def label(self) -> str:
        return LABELS[self.setting]


def sweeps(results: Results, rows: Sequence[AttackRow]) -> list[Sweep]:
    """Returns a sweep for each setting that varies among the attacks of the rows.

    Lines of epsilon begin with the clean images. A line is labelled by what its attacks are (method, gradient,
    variant, source); lines that share such a label go by the names of their first and last attack instead.
    """
    every = []
    for setting in LABELS:
        lines = list(sweep_lines(results, rows, setting))
        count = Counter(label for label, _, _ in lines)
        if lines:
            named = {label if count[label] == 1 else ends: points for label, ends, points in lines}
            every.append(Sweep(setting, named))
    return every


def sweep_lines(
    results: Results, rows: Sequence[AttackRow], setting: str
) -> Iterator[tuple[str, str, list[SweepPoint]]]:
    """Yields a label, the names of the first and last attack, and the points of each family of attacks."""
    by_name = {row.attack: row for row in rows}
    threats = [Threat.of(name, results.attack(name)) for name in by_name]
    start = [SweepPoint(0.0, by_name[threat.name].vote) for threat in threats if threat.access == CLEAN]
    for family in families(threats, setting):
        names = [threat.name for _, threat in family]
        points = [SweepPoint(value, by_name[threat.name].vote) for value, threat in family]
        label = attack_label(results.attack(names[0]))
        yield label, f"{names[0]} to {names[-1]}", (start if setting == "epsilon" else []) + points


def persistent_curve(records: Sequence[Record]) -> list[float]:
    """Returns the share of images that k draws all classify correctly, for k = 1 to E: the mean over all sets."""
    draws = len(records[0].draws)
    right = [sum(answer == record.label for answer in record.draws) for record in records]
    return [fmean(comb(count, k) / comb(draws, k) for count in right) for k in range(1, draws + 1)]


def majority_curve(records: Sequence[Record]) -> list[float]:
    """Returns the accuracy of the most frequent answer of k draws, for k = 1 to E.

    It is the mean over the E sets of k draws that follow each other in a circle, so that every draw counts equally
    often. Of several answers that are equally frequent, each counts in part.
    """
    draws = len(records[0].draws)
    return [fmean(majority(record, k) for record in records) for k in range(1, draws + 1)]


def majority(record: Record, count: int) -> float:
    """Returns in which share of the sets of ``count`` draws the most frequent answer is right."""
    circle = record.draws * 2
    return fmean(right_share(circle[start : start + count], record.label) for start in range(len(record.draws)))


def right_share(answers: Sequence[int], label: int) -> float:
    """Returns 1 where the most frequent answer is right, a part of it where several are equally frequent, else 0."""
    votes = Counter(answers)
    most = max(votes.values())
    winners = [answer for answer, number in votes.items() if number == most]
    return (label in winners) / len(winners)


# Narrow enough that letters stay legible on a phone.
WIDTH = 5.2
# So many letters fit side by side.
LETTERS = 70
# The least distance of two labels, as a share of the axis.
CLOSEST = 1 / 14
# Okabe and Ito's colors, which the color-blind tell apart; black and yellow are left out.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP*X"
Place = Literal["outside upper left", "outside lower left"]
SCORES = {"vote": "one vote of E draws", "draw": "one draw, E = 1", "persistent": "right in each of E draws"}


@default_style()
def accuracy_chart(rows: Sequence[AttackRow]) -> str:
    """Returns a chart of each row's accuracies with their intervals, as SVG."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.55 * len(rows)), layout="constrained")
    axis = figure.subplots()
    scores = SCORES if rows[0].draws > 1 else {"vote": "one draw"}
    for place, (name, label) in enumerate(scores.items()):
        estimates = [getattr(row, name) for row in rows]
        heights = [number + 0.02 + 0.17 * place for number in range(len(rows))]
        draw_intervals(axis, estimates, heights, label, COLORS[place], MARKERS[place])
    for number, row in enumerate(rows):
        lines = wrap(row.attack, max(LETTERS, len(row.attack) // 2 + 8))
        size = min(8.5 if len(lines) == 1 else 7.5, 8.5 * LETTERS / max(map(len, lines)))
        title = axis.text(0, number - 0.22, "\n".join(lines), fontsize=size, va="center", parse_math=False)
        title.set_in_layout(False)  # it would take its width from the axis
        axis.axhline(number + 0.55, color="0.75", linewidth=0.6)
    axis.set_ylim(len(rows) - 0.45, -0.45)
    axis.spines[["left", "top", "right"]].set_visible(False)
    axis.set_yticks([])
    axis.set_xlabel("accuracy")
    percent(axis.xaxis, axis.set_xlim)
    axis.grid(axis="x", color="0.88")
    draw_legend(figure, axis, "outside upper left", columns=3)
    return svg(figure)


def draw_intervals(
    axis: Axes, estimates: Sequence[Estimate], heights: Sequence[float], label: str, color: str, marker: str
) -> None:
    values = [each.value for each in estimates]
    errors = [[each.value - each.low for each in estimates], [each.high - each.value for each in estimates]]
    axis.errorbar(values, heights, xerr=errors, fmt=marker, color=color, markersize=4.5, capsize=2.5, label=label)


@default_style()
def draws_chart(persistent: Mapping[str, Sequence[float]], majority: Mapping[str, Sequence[float]]) -> str:
    """Returns a chart of accuracy against the number of draws, 1 to E, as SVG.

    Args:
        persistent: ``persistent_curve`` of each attack, by its name.
        majority: ``majority_curve`` of each attack, by its name.
    """
    figure = Figure(figsize=(WIDTH, 5.4 + 0.14 * len(persistent)), layout="constrained")
    panels = {"right in each of k draws": persistent, "most frequent answer of k draws": majority}
    axes = figure.subplots(len(panels), sharex=True)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            axis.plot(range(1, len(values) + 1), values, label=name, **style(number))
        axis.set_title(title, fontsize=9, loc="left")
        decorate(axis)
    axes[-1].set_xlabel("k, draws of an image")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    columns = 2 if max(map(len, persistent)) < 30 else 1
    draw_legend(figure, axes[0], "outside lower left", columns)
    return svg(figure)


@default_style()
def sweep_chart(sweep: Sweep) -> str:
    """Returns a chart of accuracy against one setting, as SVG, with a line for each family of attacks."""
    figure = Figure(figsize=(WIDTH, 3 + 0.2 * len(sweep.lines)), layout="constrained")
    axis = figure.subplots()
    for number, (name, points) in enumerate(sweep.lines.items()):
        estimates = [point.accuracy for point in points]
        errors = [[each.value - each.low for each in estimates], [each.high - each.value for each in estimates]]
        places = [point.value for point in points]
        axis.errorbar(places, [each.value for each in estimates], errors, capsize=2.5, label=name, **style(number))
    axis.set_xlabel(sweep.label)
    if sweep.setting != "epsilon":
        count_axis(axis, sorted({point.value for points in sweep.lines.values() for point in points}))
    decorate(axis)
    draw_legend(figure, axis, "outside lower left", columns=1)
    return svg(figure)


@default_style()
def stage_chart(verdict: Verdict) -> str:
    """Returns a chart of the images that stand after each stage of a suite that ran, as SVG."""
    stages = [stage for stage in verdict.stages if stage.images]
    names = ["clean image", *(stage.name for stage in stages)]
    first = stages[0].images if stages else round(verdict.clean.value * verdict.images)
    left = [first, *(stage.left for stage in stages)]
    figure = Figure(figsize=(WIDTH, 0.7 + 0.34 * len(names)), layout="constrained")
    axis = figure.subplots()
    shares = [count / verdict.images for count in left]
    fallen = [max(before - after, 0) for before, after in pairwise([1.0, *shares])]
    axis.barh(range(len(names)), shares, color=COLORS[0])
    axis.barh(range(len(names)), fallen, left=shares, color=COLORS[1], alpha=0.45)
    for number, count in enumerate(left):
        axis.text(shares[number] + fallen[number] + 0.01, number, f"{count:,}", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("images that stand; the light part left in this stage")
    percent(axis.xaxis, axis.set_xlim)
    axis.set_xlim(0, 1.08)
    axis.spines[["top", "right"]].set_visible(False)
    return svg(figure)


@default_style()
def loss_chart(losses: Mapping[str, Tensor]) -> str:
    """Returns a chart of the mean loss over the steps of each gradient stage, as SVG.

    Args:
        losses: (N, steps) by the stage's name; NaN where an image was out of the cascade.
    """
    figure = Figure(figsize=(WIDTH, 3 + 0.2 * len(losses)), layout="constrained")
    axis = figure.subplots()
    for number, (name, values) in enumerate(losses.items()):
        mean = values.nanmean(0)
        # Losses differ in scale: each is shown from its start to its highest.
        scaled = (mean - mean[0]) / (mean.max() - mean[0]).clamp(min=1e-12)
        axis.plot(range(len(scaled)), scaled.tolist(), label=name, **style(number) | {"marker": ""})
    axis.set_xlabel("step")
    axis.set_ylabel("mean loss, from its start to its highest")
    draw_legend(figure, axis, "outside lower left", columns=1)
    return svg(figure)


def draw_legend(figure: Figure, axis: Axes, place: Place, columns: int) -> None:
    """Draws an axis's legend outside of all axes. A dollar sign in an attack's name is no mathematics."""
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc=place, ncols=columns, fontsize=7.5, frameon=False, handletextpad=0.4, columnspacing=1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def style(number: int) -> dict[str, Any]:
    """Returns color, marker and line style of a number; the first 24 numbers all differ."""
    lines = ("-", "--", ":", "-.")
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": lines[number // len(COLORS) % len(lines)],
        "markersize": 4,
        "linewidth": 1.3,
    }


def count_axis(axis: Axes, counts: Sequence[float]) -> None:
    """Makes the axis logarithmic, with ticks where something was measured."""
    axis.set_xscale("log")
    axis.set_xticks(counts, labels_apart(counts))
    axis.minorticks_off()


def labels_apart(counts: Sequence[float]) -> list[str]:
    """Returns labels of growing counts on a logarithmic axis, "" where one would touch the label before."""
    labels, last, apart = [], 0.0, (counts[-1] / counts[0]) ** CLOSEST
    for count in counts:
        near = last and count / last < apart
        labels.append("" if near else f"{count:g}")
        last = last if near else count
    return labels


def decorate(axis: Axes) -> None:
    axis.set_ylabel("accuracy")
    percent(axis.yaxis, axis.set_ylim)
    axis.grid(color="0.88")
    axis.spines[["top", "right"]].set_visible(False)


def percent(axis: Axis, set_limits: Callable[[float, float], object]) -> None:
    set_limits(-0.02, 1.02)
    axis.set_major_formatter(PercentFormatter(1))


def svg(figure: Figure) -> str:
    """Returns the figure as SVG. Equal figures give equal text: without a date, and with ids by a fixed salt."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "neuroae"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
