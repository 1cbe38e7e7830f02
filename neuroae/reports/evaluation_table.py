"""Rows of an evaluation as Markdown, which reads well in a terminal too, and as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ..evaluation.statistics import Estimate
from ..markdown import table
from .rows import AttackRow

NOTES = """\
Accuracies are upper bounds: of the attacks that were tried, at the budgets that were tried. Intervals are of 95%.
E draws answer as one vote (Clopper-Pearson over images); E = 1 is the mean over these draws (bootstrap over images).
Who may ask again is stopped only by images that all draws answer rightly. The draws that score were seen by no attack
and by no selection. Of several attacks of one budget, the worst of each image is chosen on other draws, and the lowest
accuracy, which is the paper's rule, on the scoring draws themselves. Of the ensemble as deployed, a gradient is that
of all its members."""


class Column(NamedTuple):
    """
    Attributes:
        title: of the column.
        cell: a row's text.
    """

    title: str
    cell: Callable[[AttackRow], str]


def columns(rows: Sequence[AttackRow]) -> list[Column]:
    """Those that say something: one draw an image has no vote, and attacks without passes no rates."""
    draws = rows[0].draws
    shown = [
        Column("attack", lambda row: row.attack),
        Column(f"accuracy, E = {draws}", lambda row: f"{row.vote.value:.1%}"),
        Column("95% interval", lambda row: interval(row.vote)),
    ]
    if draws > 1:
        shown += [
            Column("E = 1", lambda row: f"{row.draw.value:.1%}"),
            Column("95% interval, E = 1", lambda row: interval(row.draw)),
            Column(f"all {draws} draws right", lambda row: f"{row.persistent.value:.1%}"),
        ]
    return [
        *shown,
        Column("images", lambda row: f"{row.images:,}"),
        Column("gradients an image", lambda row: f"{row.gradients:,}" if row.gradients else ""),
        Column("no gradient", lambda row: "" if row.unusable is None else f"{row.unusable:.2%}"),
        Column("mean linf", lambda row: f"{row.linf:.4f}" if row.linf else ""),
        Column("mean l2", lambda row: f"{row.l2:.3f}" if row.l2 else ""),
        Column("seconds", lambda row: f"{row.seconds:,.1f}"),
    ]


def interval(estimate: Estimate) -> str:
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def markdown(rows: Sequence[AttackRow]) -> str:
    shown = columns(rows)
    return table([column.title for column in shown], [[column.cell(row) for column in shown] for row in rows])


def to_csv(rows: Sequence[AttackRow], deterministic: bool, finished: bool) -> str:
    """A line a row, all digits, accuracies with the ends of their intervals in columns of their own.

    Whether masks were fixed, and whether the evaluation is done, stands in every line.
    """
    buffer = io.StringIO()
    lines = [flat(row) | {"deterministic": deterministic, "finished": finished} for row in rows]
    writer = csv.DictWriter(buffer, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def flat(row: AttackRow) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            fields |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            fields[name] = value
    return fields
