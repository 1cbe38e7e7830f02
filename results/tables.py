"""The paper's tables with ours beside them: ``python -m results.tables`` reads what the experiments have written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from neuroae.markdown import table
from neuroae.storage import load_json, replacing
from results.command import run

HEADER = ("table", "model", "attack", "paper", "ours", "95% interval", "images", "made by")
NOTES = """\
Paper: accuracy on the 10,000 test images of CIFAR-10, without interval. Ours: on so many of them, from the front, with
the Clopper-Pearson interval; a defense answers by the vote of 10 realizations that no attack saw. What has no number
has not been measured yet. Each folder holds the page of its evaluation (`report.html`), with more statistics, every
record and the settings. `python -m results.tables` makes this page of them."""


@dataclass(frozen=True)
class Published:
    """One accuracy that the paper reports.

    Attributes:
        table, model, attack: where it stands.
        percent: the accuracy.
        experiment: of ours, which measures the same.
        row: how the experiment calls it, or how only this name of its begins.
    """

    table: str
    model: str
    attack: str
    percent: float
    experiment: str
    row: str


PUBLISHED = (
    Published("1", "defense", "clean", 80.06, "table1", "clean"),
    Published("1", "defense", "W-NFGA identity", 63.72, "table1", "W-NFGA identity"),
    Published("1", "defense", "W-NFGA smooth", 61.28, "table1", "W-NFGA smooth"),
    Published("1", "defense", "PW-T", 39.53, "table1", "linf 8/255, lowest of PW-T"),
    Published("1", "defense", "B-T", 57.76, "table1", "PGD from adversarially trained"),
    Published("3", "undefended", "clean", 93.10, "table3-undefended", "clean"),
    Published("3", "undefended", "PGD", 0.0, "table3-undefended", "PGD"),
    Published("3", "PGD adversarially trained", "clean", 79.41, "table3-adversarial", "clean"),
    Published("3", "PGD adversarially trained", "margin, N_S 100, N_R 50", 42.05, "worst_case", "50 starts"),
    Published("6", "defense", "PW-T, default", 39.53, "table6", "default"),
    Published("6", "defense", "PW-T, N_S 100", 38.93, "table6", "N_S 100"),
    Published("6", "defense", "PW-T, N_E 100", 39.25, "table6", "N_E 100"),
    Published("6", "defense", "PW-T, N_R 10", 39.38, "table6", "N_R 10"),
)


@dataclass(frozen=True)
class Measured:
    """An accuracy of ours, in [0, 1], with the ends of its 95% interval."""

    value: float
    low: float
    high: float
    images: int

    def cells(self) -> tuple[str, str, str]:
        return f"{self.value:.1%}", f"{self.low:.1%} to {self.high:.1%}", f"{self.images:,}"


def measured(folder: Path) -> dict[str, Measured]:
    """What an experiment found, by the names of its rows; nothing where it has not been run."""
    if (folder / "summary.json").exists():
        summary = load_json(folder / "summary.json")
        rows = [*summary["attacks"], *summary["together"]]
        return {row["attack"]: Measured(row["vote"], row["vote_low"], row["vote_high"], row["images"]) for row in rows}
    if (folder / "results.json").exists():
        rows = load_json(folder / "results.json")["rows"]
        return {row["attack"]: Measured(row["accuracy"], row["low"], row["high"], row["images"]) for row in rows}
    return {}


def one_named(found: Mapping[str, Measured], row: str) -> Measured | None:
    """The row of this name, or else the only one whose name begins so; None where nothing has been measured.

    Raises:
        ValueError: there are rows, but not one such.
    """
    if not found or row in found:
        return found.get(row)
    names = [name for name in found if name.startswith(row)]
    if len(names) != 1:
        raise ValueError(f"{len(names)} rows are named {row!r}..., expected one of {', '.join(found)}")
    return found[names[0]]


def rows(results: Path) -> Iterator[tuple[str, ...]]:
    found = {experiment: measured(results / experiment) for experiment in {one.experiment for one in PUBLISHED}}
    for one in PUBLISHED:
        ours = one_named(found[one.experiment], one.row)
        cells = ours.cells() if ours else ("", "", "")
        link = f"[{one.experiment}]({one.experiment}/)" if ours else one.experiment
        yield one.table, one.model, one.attack, f"{one.percent:.2f}%", *cells, link


def main(
    results: Annotated[Path, typer.Option(help="Folder with the experiments' folders.")] = Path("results"),
) -> None:
    """Write README.md into the folder of the results, and print its table."""
    text = table(HEADER, rows(results), text_columns=3)
    with replacing(results / "README.md") as temporary:
        temporary.write_text(f"# The paper's tables, measured\n\n{text}\n\n{NOTES}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run(main)
