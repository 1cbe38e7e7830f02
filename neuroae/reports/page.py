"""The report of an evaluation as one HTML page that needs nothing else: no network, no scripts."""

import base64
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from .charts import accuracy_chart, draws_chart, sweep_chart
from .draws import majority_curve, persistent_curve
from .evaluation_report import Report
from .evaluation_table import NOTES, columns
from .examples import examples
from .pairs import COLUMNS, TITLE
from .provenance import asked, made_with
from .style import dispensable
from .sweeps import sweeps

TEMPLATE = "page.html"
# Images of no more pixels a side are shown larger than they are.
COARSE = 80
SYMBOLS = {"pass": "✓", "warn": "!", "fail": "✗"}


class Picture(NamedTuple):
    """
    Attributes:
        title: above it.
        source: a data URI.
        caption: below it.
    """

    title: str
    source: str
    caption: str


def page(report: Report) -> str:
    """The same text for the same folder."""
    environment = Environment(
        loader=PackageLoader("neuroae", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [*report.rows, *report.joint]
    return environment.get_template(TEMPLATE).render(
        report=report,
        data=report.results.manifest["identity"]["data"],
        columns=columns(rows),
        notes=NOTES,
        against=TITLE,
        against_columns=COLUMNS,
        symbols=SYMBOLS,
        coarse=COARSE,
        pictures=list(pictures(report)),
        examples=examples(report.results),
        asked=asked(report.results),
        made_with=made_with(report.results),
    )


def pictures(report: Report) -> Iterator[Picture]:
    """Those that can be drawn; a warning names any other."""
    for title, chart, caption in charts(report):
        source = None
        with dispensable(title):
            source = svg_uri(chart())
        if source is not None:
            yield Picture(title, source, caption)


def charts(report: Report) -> Iterator[tuple[str, Callable[[], str], str]]:
    """Title, a function that draws, and caption of each picture."""
    rows = [*report.rows, *report.joint]
    yield (
        "Accuracy by attack",
        partial(accuracy_chart, rows),
        "With 95% intervals; the numbers are those of the table.",
    )
    records = {row.attack: report.results.records[row.attack] for row in report.rows}
    if report.rows[0].draws > 1:
        persistent = {name: persistent_curve(own) for name, own in records.items()}
        majority = {name: majority_curve(own) for name, own in records.items()}
        yield (
            "Accuracy against the number of draws",
            partial(draws_chart, persistent, majority),
            "Above, an attacker asks k times and needs one wrong answer. Below, k draws vote, and the most frequent "
            "answer counts; the table's vote takes the mean of their probabilities instead.",
        )
    for sweep in sweeps(report.results, report.rows):
        yield (
            f"Accuracy against {sweep.label}",
            partial(sweep_chart, sweep),
            "Attacks that differ in this alone; one vote of E draws, with 95% intervals.",
        )


def svg_uri(text: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"
