"""Pictures of an evaluation's accuracies, as SVG."""

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import takewhile
from math import comb
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any, Literal, NamedTuple

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..evaluation import CLEAN, Record, Results
from ..evaluation.checks import Threat
from ..evaluation.checks.check import families, valued
from ..evaluation.statistics import Estimate
from ..training import Epoch
from ..utils.files import replacing
from .tables import AttackRow


@contextmanager
def default_style() -> Iterator[None]:
    """Matplotlib's own, whatever the user's configuration says, which may ask for LaTeX or fonts that are missing."""
    with matplotlib.style.context("default"):
        yield


@contextmanager
def dispensable(name: object) -> Iterator[None]:
    """Turns the failure of a picture, whose name or file this is, into a warning."""
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
    value: float
    accuracy: Estimate


@dataclass(frozen=True)
class Sweep:
    """
    Attributes:
        setting: its name.
        lines: points of growing value, by what the names of their attacks have in common.
    """

    setting: str
    lines: Mapping[str, Sequence[SweepPoint]]

    @property
    def label(self) -> str:
        return LABELS[self.setting]


def sweeps(results: Results, rows: Sequence[AttackRow]) -> list[Sweep]:
    """One for each setting that varies among the attacks of the rows; those of epsilon begin with the clean images."""
    found = []
    for setting in LABELS:
        lines: dict[str, Sequence[SweepPoint]] = {}
        for names, points in lines_of(results, rows, setting):
            common = shared(names)
            lines[common if common and common not in lines else f"{names[0]} to {names[-1]}"] = points
        if lines:
            found.append(Sweep(setting, lines))
    return found


def lines_of(
    results: Results, rows: Sequence[AttackRow], setting: str
) -> Iterator[tuple[list[str], list[SweepPoint]]]:
    """Names and points of the attacks that differ in the setting alone, where these are several."""
    by_name = {row.attack: row for row in rows}
    start = [SweepPoint(0.0, row.vote) for row in rows if row.attack == CLEAN and setting == "epsilon"]
    for family in families([Threat.of(name, results.attack(name)) for name in by_name], setting):
        points = [SweepPoint(valued(threat, setting), by_name[threat.name].vote) for threat in family]
        yield [threat.name for threat in family], start + points


def shared(names: Sequence[str]) -> str:
    """What all names say: the parts between commas that they share, or else the words; empty if there is nothing."""
    return common(names, ", ", r", ") or common(names, " ", r"[\s,;:]+")


def common(names: Sequence[str], joint: str, separator: str) -> str:
    """The parts that all names share; of names of unequal length, those that they begin with, or else end with."""
    split = [re.split(separator, name) for name in names]
    if len(set(map(len, split))) == 1:
        return joint.join(filter(None, alike(split)))
    first = takewhile(bool, alike(split))
    last = takewhile(bool, alike([parts[::-1] for parts in split]))
    return joint.join(first) or joint.join([*last][::-1])


def alike(rows: Sequence[Sequence[str]]) -> list[str]:
    """What the rows have in each place where all have the same, and nothing elsewhere."""
    return [column[0] if len(set(column)) == 1 else "" for column in zip(*rows, strict=False)]


def persistent_curve(records: Sequence[Record]) -> list[float]:
    """Share of images that are right in each of k draws, for k = 1 .. E: the mean over all sets of k scoring draws."""
    draws = len(records[0].draws)
    right = [sum(answer == record.label for answer in record.draws) for record in records]
    return [fmean(comb(count, k) / comb(draws, k) for count in right) for k in range(1, draws + 1)]


def majority_curve(records: Sequence[Record]) -> list[float]:
    """Accuracy of the most frequent answer of k draws, for k = 1 .. E.

    The mean over the E sets of k draws that follow each other in a circle, so that every draw counts as often; of
    several answers that are equally frequent, each counts in part.
    """
    draws = len(records[0].draws)
    return [fmean(majority(record, k) for record in records) for k in range(1, draws + 1)]


def majority(record: Record, count: int) -> float:
    circle = record.draws * 2
    return fmean(part_right(circle[start : start + count], record.label) for start in range(len(record.draws)))


def part_right(answers: Sequence[int], label: int) -> float:
    votes = Counter(answers)
    most = max(votes.values())
    winners = [answer for answer, number in votes.items() if number == most]
    return (label in winners) / len(winners)


TABLE = "epochs.csv"
PICTURE = "curves.png"


class TrainingRecord:
    """Keeps ``epochs.csv`` and ``curves.png`` in a folder up to date, over all stages of a training."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stages: dict[str, list[Epoch]] = {}

    def update(self, epochs: list[Epoch]) -> None:
        """Takes the epochs of one stage so far, and writes both files anew."""
        self.stages[epochs[0].stage] = epochs
        save_epochs(self.folder / TABLE, [epoch for stage in self.stages.values() for epoch in stage])
        with dispensable(self.folder / PICTURE):
            draw_curves(self.folder / PICTURE, self.stages)


def save_epochs(path: Path, epochs: list[Epoch]) -> None:
    """A line an epoch; what was not measured stays empty."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)


@default_style()
def draw_curves(path: Path, stages: dict[str, list[Epoch]]) -> None:
    """Loss, accuracy and learning rate of each stage against its epochs."""
    figure = Figure(figsize=(4 * len(stages), 6.5), layout="constrained")
    axes = figure.subplots(3, len(stages), squeeze=False, sharex="col")
    for column, (stage, epochs) in zip(axes.T, stages.items(), strict=True):
        column[0].set_title(stage)
        column[-1].set_xlabel("epoch")
        for axis, name in zip(column, ("loss", "accuracy"), strict=False):
            draw_values(axis, epochs, name, "training images, while learned from")
            draw_values(axis, epochs, f"validation_{name}", "validation images")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
        draw_values(column[2], epochs, "learning_rate", "learning rate at the end")
        column[2].set_ylabel("learning rate")
        column[2].grid(alpha=0.3)
        column[0].legend(fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_values(axis: Axes, epochs: list[Epoch], name: str, label: str) -> None:
    found = [(epoch.number, getattr(epoch, name)) for epoch in epochs if getattr(epoch, name) is not None]
    if found:
        axis.plot(*zip(*found, strict=True), marker=".", label=label)


# Narrow enough that letters stay legible on a phone.
WIDTH = 5.2
LETTERS = 70  # as many fit beside one another
CLOSEST = 1 / 14  # of the axis, between two labels
# Okabe and Ito's colors, which the color-blind tell apart; black and yellow are left out.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP*X"
Place = Literal["outside upper left", "outside lower left"]
SCORES = {"vote": "one vote of E draws", "draw": "one draw, E = 1", "persistent": "right in each of E draws"}


@default_style()
def accuracy_chart(rows: Sequence[AttackRow]) -> str:
    """Each row with its accuracies and their intervals, side by side."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.55 * len(rows)), layout="constrained")
    axis = figure.subplots()
    scores = SCORES if rows[0].draws > 1 else {"vote": "one draw"}
    for place, (name, label) in enumerate(scores.items()):
        found = [getattr(row, name) for row in rows]
        heights = [number + 0.02 + 0.17 * place for number in range(len(rows))]
        draw_intervals(axis, found, heights, label, COLORS[place], MARKERS[place])
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
    axis: Axes, found: Sequence[Estimate], heights: Sequence[float], label: str, color: str, marker: str
) -> None:
    values = [each.value for each in found]
    errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
    axis.errorbar(values, heights, xerr=errors, fmt=marker, color=color, markersize=4.5, capsize=2.5, label=label)


@default_style()
def draws_chart(persistent: Mapping[str, Sequence[float]], majority: Mapping[str, Sequence[float]]) -> str:
    """Accuracy against the number of draws, 1 to E, of each attack by its name: asked again and again, and voting."""
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
    """Accuracy against one setting, a line for each family of attacks that differ in it alone."""
    figure = Figure(figsize=(WIDTH, 3 + 0.2 * len(sweep.lines)), layout="constrained")
    axis = figure.subplots()
    for number, (name, points) in enumerate(sweep.lines.items()):
        found = [point.accuracy for point in points]
        errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
        places = [point.value for point in points]
        axis.errorbar(places, [each.value for each in found], errors, capsize=2.5, label=name, **style(number))
    axis.set_xlabel(sweep.label)
    if sweep.setting != "epsilon":
        count_axis(axis, sorted({point.value for points in sweep.lines.values() for point in points}))
    decorate(axis)
    draw_legend(figure, axis, "outside lower left", columns=1)
    return svg(figure)


def draw_legend(figure: Figure, axis: Axes, place: Place, columns: int) -> None:
    """Of one axis, outside of all. Names of attacks may hold a dollar sign, which is no mathematics."""
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc=place, ncols=columns, fontsize=7.5, frameon=False, handletextpad=0.4, columnspacing=1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def style(number: int) -> dict[str, Any]:
    """Color, marker and line, no two alike among the first 24."""
    lines = ("-", "--", ":", "-.")
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": lines[number // len(COLORS) % len(lines)],
        "markersize": 4,
        "linewidth": 1.3,
    }


def count_axis(axis: Axes, counts: Sequence[float]) -> None:
    """Logarithmic, with marks where something was measured."""
    axis.set_xscale("log")
    axis.set_xticks(counts, labels_apart(counts))
    axis.minorticks_off()


def labels_apart(counts: Sequence[float]) -> list[str]:
    """Of growing counts on a logarithmic axis: empty where a label would touch the one before."""
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
    """The same text for the same numbers: no date, and names of parts by a fixed salt."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "neuroae"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
