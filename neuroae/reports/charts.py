"""Pictures of an evaluation's accuracies, as SVG."""

import io
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..evaluation.statistics import Estimate
from .rows import AttackRow
from .style import default_style
from .sweeps import Sweep

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
