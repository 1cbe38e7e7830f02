"""Writes the report of an evaluation into its folder."""

import base64
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..evaluation import Results
from ..evaluation.checks import save_checks
from ..evaluation.folder import IMAGES, SANITY, Files
from ..utils.files import LEFTOVER_SECONDS, remove_leftovers, replacing, save_json
from .charts import accuracy_chart, dispensable, draws_chart, majority_curve, persistent_curve, sweep_chart, sweeps
from .pictures import examples
from .report import Report
from .tables import NOTES, PAIR_COLUMNS, PAIR_TITLE, columns, flat, to_csv

SHOWN_DIGITS = 16


def asked(results: Results) -> dict[str, str]:
    """Each attack with its settings in one line."""
    return {name: in_words(results, name) for name in results.records}


def in_words(results: Results, name: str) -> str:
    """Method, access, source, surrogate gradient, settings, and what they cost."""
    attack = results.attack(name)
    source = attack.get("source") or {}
    words = [attack["method"], attack["access"]]
    words += [f"from {source['name']}"] if source.get("name") else []
    told = ("surrogate", "variant", "precision") if attack["gradients"] else ("variant", "precision")
    words += [str(attack[key]) for key in told if attack.get(key)]
    settings = [f"{key} {shown(value)}" for key, value in attack.get("settings", {}).items() if value is not None]
    passes = [f"{attack[kind]:,} {kind} an image" for kind in ("gradients", "forwards") if attack[kind]]
    cost = results.budget(name)
    passes += [f"budget C {cost:,.0f}"] if cost is not None else []
    return "; ".join(", ".join(part) for part in (list(dict.fromkeys(words)), settings, passes) if part)


def made_with(results: Results) -> dict[str, str]:
    """The manifest in short."""
    identity, scoring = results.manifest["identity"], results.manifest["identity"]["scoring"]
    versions = results.manifest["versions"]
    return {
        "model": f"{results.model}, {identity['model']['kind']}, {digest(identity['model'])}",
        "images": f"{identity['data']['images']:,} of {identity['data']['name']}, {digest(identity['data'])}",
        "scoring": ", ".join(f"{key} {shown(value)}" for key, value in scoring.items()),
        "blocks": f"{identity['block']:,} images",
        "engine": f"{identity['engine']} on {identity['device']}"
        + (f", {identity['threads']} threads" if identity["threads"] else ""),
        "versions": "; then ".join(", ".join(f"{key} {value}" for key, value in each.items()) for each in versions),
        "seconds": f"{sum(results.seconds.values()):,.0f} of all processes together",
    }


def digest(part: Mapping[str, Any]) -> str:
    return f"fingerprint {part['fingerprint'][:SHOWN_DIGITS]}…"


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
        against=PAIR_TITLE,
        against_columns=PAIR_COLUMNS,
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


SUMMARY = "summary.json"
CSV = "results.csv"
MARKDOWN = "results.md"
PAGE = "report.html"


def write_report(folder: str | Path) -> Report:
    """Makes ``summary.json``, ``results.csv``, ``results.md``, ``sanity.json`` and ``report.html`` anew.

    Args:
        folder: of an evaluation, which need not be done.

    Raises:
        FileNotFoundError: there is no evaluation in the folder.
        ValueError: a file is damaged, or nothing is recorded yet.
    """
    folder = Path(folder)
    report = Report.of(folder)
    for name in (SUMMARY, SANITY, CSV, MARKDOWN, PAGE):
        remove_leftovers(folder / name, LEFTOVER_SECONDS)  # not those of a report that is made at the same time
    if not (folder / IMAGES).is_dir():
        warnings.warn(f"{folder} holds no {IMAGES}: the page shows no examples", stacklevel=2)
    save_json(folder / SUMMARY, summary(report))
    save_checks(Files(folder).sanity, report.checks)
    write(folder / CSV, to_csv([*report.rows, *report.joint], report.results.deterministic, report.finished))
    write(folder / MARKDOWN, text(report))
    write(folder / PAGE, page(report))
    return report


def write(path: Path, content: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def summary(report: Report) -> dict[str, Any]:
    """What a program wants to know first."""
    results = report.results
    return {
        "model": results.model,
        "data": results.manifest["identity"]["data"],
        "finished": report.finished,
        "deterministic": results.deterministic,
        "seconds": sum(results.seconds.values()),
        "attacks": [flat(row) for row in report.rows],
        "together": [flat(row) for row in report.joint],
        "against": report.paired.as_json() if report.paired else None,
        "sanity": report.verdicts,
    }


def text(report: Report) -> str:
    """The tables, the sanity report and what was evaluated, as a Markdown page."""
    checks = "\n".join(
        f"- **{check.verdict}**: {check.name}: {check.found}. {check.advice or check.meaning}"
        for check in report.checks
    )
    data = report.results.manifest["identity"]["data"]
    parts = [
        f"# {report.results.model} on {data['images']:,} images of {data['name']}",
        *(f"**{warning}**" for warning in report.warnings),
        report.table,
        NOTES,
        *([f"## {PAIR_TITLE}", report.paired.markdown(), report.paired.note] if report.paired else []),
        "## Sanity",
        checks,
        "## What was evaluated",
        "\n".join(f"- {name}: {value}" for name, value in made_with(report.results).items()),
    ]
    return "\n\n".join(parts) + "\n"
