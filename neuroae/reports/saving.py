"""Writes the report of an evaluation into its folder."""

import warnings
from pathlib import Path
from typing import Any

from ..evaluation.files import IMAGES, SANITY, Files
from ..evaluation.sanity import save_checks
from ..storage import LEFTOVER_SECONDS, remove_leftovers, replacing, save_json
from .evaluation_report import Report
from .evaluation_table import NOTES, flat, to_csv
from .page import page
from .pairs import TITLE
from .provenance import made_with

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
        *([f"## {TITLE}", report.paired.markdown(), report.paired.note] if report.paired else []),
        "## Sanity",
        checks,
        "## What was evaluated",
        "\n".join(f"- {name}: {value}" for name, value in made_with(report.results).items()),
    ]
    return "\n\n".join(parts) + "\n"
