"""The report of an evaluation: reads a folder, and writes tables, pictures and the sanity report into it.

Reports run no model. What needs one is measured by ``run_evaluation``.
"""

import base64
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..evaluation import Results, Verdict
from ..evaluation.checks import BATCHES, VERDICTS, Check, sanity_checks, save_checks
from ..evaluation.checks.stages import suite_names
from ..evaluation.folder import IMAGES, SANITY, Files
from ..evaluation.results import load_partial
from ..evaluation.verdict import COLUMNS as STAGE_COLUMNS
from ..utils.files import LEFTOVER_SECONDS, remove_leftovers, replacing, save_json
from .charts import (
    accuracy_chart,
    dispensable,
    draws_chart,
    loss_chart,
    majority_curve,
    persistent_curve,
    stage_chart,
    sweep_chart,
    sweeps,
)
from .pictures import examples
from .tables import (
    NOTES,
    PAIR_COLUMNS,
    PAIR_TITLE,
    AttackRow,
    Pairing,
    attack_rows,
    columns,
    flat,
    joint_rows,
    markdown,
    pairing,
    to_csv,
)

FIXED_MASKS = "FIXED MASKS, for debugging: these results say nothing about the random model."
BATCH_DEPENDENT = (
    "NOT ROBUSTNESS: the answer to an image depends on the other images in its batch, so these accuracies hold for "
    "these batches alone; see the sanity report."
)
UNFINISHED = (
    "UNFINISHED: the evaluation is not done. Accuracies are of the images that are finished, which may differ among "
    "attacks."
)


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says.

    Attributes:
        results: The results of the evaluation, as far as it has come.
        rows: A row of each attack.
        joint: Rows of several attacks of one budget together.
        paired: The attacks beside the first one; None where there are no two.
        checks: The sanity report.
        verdict: What a suite left; None for single attacks alone, and for a suite that is not finished.
    """

    results: Results
    rows: Sequence[AttackRow]
    joint: Sequence[AttackRow]
    paired: Pairing | None
    checks: Sequence[Check]
    verdict: Verdict | None

    @classmethod
    def of(cls, folder: str | Path) -> "Report":
        """Returns the report of an evaluation, which need not be finished (see ``load_partial``)."""
        results = load_partial(folder)
        suites = suite_names(results) if results.finished else []
        return cls(
            results,
            attack_rows(results),
            joint_rows(results),
            pairing(results),
            sanity_checks(results),
            Verdict.of(results, suites[-1]) if suites else None,
        )

    @property
    def warnings(self) -> list[str]:
        """What to know before reading any number."""
        depends_on_batch = any(check.name == BATCHES and check.verdict == "fail" for check in self.checks)
        texts = {
            FIXED_MASKS: self.results.deterministic,
            BATCH_DEPENDENT: depends_on_batch,
            UNFINISHED: not self.results.finished,
        }
        return [text for text, applies in texts.items() if applies]

    @property
    def table(self) -> str:
        """All rows, in Markdown."""
        return markdown([*self.rows, *self.joint])

    @property
    def verdicts(self) -> dict[str, int]:
        """How many checks passed, warned and failed."""
        count = Counter(check.verdict for check in self.checks)
        return {verdict: count[verdict] for verdict in VERDICTS}

    def __str__(self) -> str:
        """Returns warnings, table and checks as text for a terminal."""
        parts = [
            *self.warnings,
            *verdict_parts(self.verdict),
            self.table,
            "\n".join(check.line for check in self.checks),
        ]
        return "\n\n".join(parts)


def verdict_parts(verdict: Verdict | None) -> list[str]:
    """Returns the paragraphs of a verdict: its sentence, what larger budgets changed, and the table of stages."""
    return [] if verdict is None else list(filter(None, (verdict.sentence, verdict.larger_budgets, verdict.table())))


SUMMARY = "summary.json"
CSV = "results.csv"
MARKDOWN = "results.md"
PAGE = "report.html"


def write_report(folder: str | Path) -> Report:
    """Writes ``summary.json``, ``results.csv``, ``results.md``, ``sanity.json`` and ``report.html`` into the folder.

    Args:
        folder: The folder of an evaluation, which need not be finished.

    Returns:
        The report. Its ``str`` is text for a terminal.

    Raises:
        FileNotFoundError: There is no evaluation in the folder.
        ValueError: A file is damaged, or nothing is recorded yet.
    """
    folder = Path(folder)
    report = Report.of(folder)
    for name in (SUMMARY, SANITY, CSV, MARKDOWN, PAGE):
        remove_leftovers(folder / name, LEFTOVER_SECONDS)  # new ones may be of a report that is being written
    if not (folder / IMAGES).is_dir():
        warnings.warn(f"{folder} holds no {IMAGES}: the page shows no examples", stacklevel=2)
    save_json(folder / SUMMARY, summary(report))
    save_checks(Files(folder).sanity, report.checks)
    rows = [*report.rows, *report.joint]
    write(folder / CSV, to_csv(rows, report.results.deterministic, report.results.finished))
    write(folder / MARKDOWN, markdown_page(report))
    write(folder / PAGE, html_page(report))
    return report


def write(path: Path, content: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def summary(report: Report) -> dict[str, Any]:
    """Returns the numbers of the report as JSON values, for programs."""
    results = report.results
    return {
        "model": results.model,
        "data": results.manifest["identity"]["data"],
        "finished": results.finished,
        "deterministic": results.deterministic,
        "seconds": sum(results.seconds.values()),
        "attacks": [flat(row) for row in report.rows],
        "together": [flat(row) for row in report.joint],
        "against": report.paired.as_json() if report.paired else None,
        "sanity": report.verdicts,
        "verdict": None if report.verdict is None else report.verdict.as_json(),
    }


def markdown_page(report: Report) -> str:
    """Returns tables, sanity report and what was evaluated as a Markdown page."""
    checks = "\n".join(
        f"- **{check.verdict}**: {check.name}: {check.finding}. {check.advice or check.meaning}"
        for check in report.checks
    )
    data = report.results.manifest["identity"]["data"]
    parts = [
        f"# {report.results.model} on {data['images']:,} images of {data['name']}",
        *(f"**{warning}**" for warning in report.warnings),
        *verdict_parts(report.verdict),
        report.table,
        NOTES,
        *([f"## {PAIR_TITLE}", report.paired.markdown(), report.paired.note] if report.paired else []),
        "## Sanity",
        checks,
        "## What was evaluated",
        "\n".join(f"- {name}: {value}" for name, value in evaluation_details(report.results).items()),
    ]
    return "\n\n".join(parts) + "\n"


TEMPLATE = "page.html"
# Images of no more pixels a side are enlarged.
COARSE = 80
SYMBOLS = {"pass": "✓", "warn": "!", "fail": "✗"}


def html_page(report: Report) -> str:
    """Returns the report as an HTML page that needs no other file. Equal folders give equal text."""
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
        pair_title=PAIR_TITLE,
        pair_columns=PAIR_COLUMNS,
        symbols=SYMBOLS,
        coarse=COARSE,
        pictures=list(pictures(report)),
        examples=examples(report.results),
        attacks={name: attack_details(report.results, name) for name in report.results.records},
        details=evaluation_details(report.results),
        stages=stage_picture(report),
        stage_columns=STAGE_COLUMNS,
    )


def stage_picture(report: Report) -> str | None:
    """Returns the chart of a suite's stages as a data URI; None without a suite, or where it cannot be drawn."""
    source = None
    if report.verdict is not None:
        with dispensable("Images that stand after each stage"):
            source = svg_uri(stage_chart(report.verdict))
    return source


class Picture(NamedTuple):
    """A chart of the page.

    Attributes:
        title: The text above it.
        source: The chart as a data URI.
        caption: The text below it.
    """

    title: str
    source: str
    caption: str


def pictures(report: Report) -> Iterator[Picture]:
    """Yields the charts of the page. A chart that cannot be drawn is left out, with a warning."""
    for title, chart, caption in charts(report):
        source = None
        with dispensable(title):
            source = svg_uri(chart())
        if source is not None:
            yield Picture(title, source, caption)


def charts(report: Report) -> Iterator[tuple[str, Callable[[], str], str]]:
    """Yields title, drawing function and caption of each chart."""
    rows = [*report.rows, *report.joint]
    if report.verdict is not None:
        losses = report.verdict.losses()
        if losses:
            caption = "Mean over the images that a stage attacked. A loss that still rises asks for more steps."
            yield "Loss over the steps of each stage", partial(loss_chart, losses), caption
    yield (
        "Accuracy by attack",
        partial(accuracy_chart, rows),
        "With 95% intervals; the numbers are those of the table.",
    )
    records = {row.attack: report.results.records[row.attack] for row in report.rows}
    if report.rows[0].draws > 1:
        persistent = {name: persistent_curve(group) for name, group in records.items()}
        majority = {name: majority_curve(group) for name, group in records.items()}
        yield (
            "Accuracy against the number of draws",
            partial(draws_chart, persistent, majority),
            "Above, an attacker asks k times and needs one wrong answer. Below, k draws vote and the most frequent "
            "answer counts; the vote in the table takes the mean of their probabilities instead.",
        )
    for sweep in sweeps(report.results, report.rows):
        yield (
            f"Accuracy against {sweep.label}",
            partial(sweep_chart, sweep),
            "Each line joins attacks that differ in this setting alone; one vote of E draws, with 95% intervals.",
        )


def svg_uri(text: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


SHOWN_DIGITS = 16


def attack_details(results: Results, name: str) -> str:
    """Returns an attack in words: method, access, source, gradient, settings and passes."""
    attack = results.attack(name)
    source = attack.get("source") or {}
    words = [attack["method"], attack["access"]]
    words += [f"from {source['name']}"] if source.get("name") else []
    keys = ("surrogate", "variant", "precision") if attack["gradients"] else ("variant", "precision")
    words += [str(attack[key]) for key in keys if attack.get(key)]
    settings = [f"{key} {shown(value)}" for key, value in attack.get("settings", {}).items() if value is not None]
    passes = [f"{attack[kind]:,} {kind} per image" for kind in ("gradients", "forwards") if attack[kind]]
    cost = results.budget(name)
    passes += [f"budget C {cost:,.0f}"] if cost is not None else []
    return "; ".join(", ".join(part) for part in (list(dict.fromkeys(words)), settings, passes) if part)


def evaluation_details(results: Results) -> dict[str, str]:
    """Returns the manifest in short, by topic."""
    identity, scoring = results.manifest["identity"], results.manifest["identity"]["scoring"]
    versions = results.manifest["versions"]
    threads = f", threads: {identity['threads']}" if identity["threads"] else ""
    return {
        "model": f"{results.model}, {identity['model']['kind']}, {digest(identity['model'])}",
        "images": f"{identity['data']['images']:,} of {identity['data']['name']}, {digest(identity['data'])}",
        "scoring": ", ".join(f"{key} {shown(value)}" for key, value in scoring.items()),
        "blocks": f"{identity['block']:,} images",
        "backend": f"{identity['engine']} on {identity['device']}{threads}",
        "versions": "; then ".join(", ".join(f"{key} {value}" for key, value in each.items()) for each in versions),
        "seconds": f"{sum(results.seconds.values()):,.0f}, summed over all processes",
    }


def digest(part: Mapping[str, Any]) -> str:
    """Returns the first digits of a fingerprint."""
    return f"fingerprint {part['fingerprint'][:SHOWN_DIGITS]}…"


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
