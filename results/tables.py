"""The paper's tables with ours beside them: ``python -m results.tables`` reads what the experiments have written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from neuroae.evaluation.files import MANIFEST
from neuroae.markdown import table
from neuroae.reports.provenance import SHOWN_DIGITS
from neuroae.storage import load_json
from results.command import run
from results.page import write_page
from results.worst_of_all import WORST

DEFENSE = "defense"
HEADER = ("table", "model", "attack", "paper", "ours", "95% interval", "images", "made by")
NOTES = """\
Paper: accuracy on the 10,000 test images of CIFAR-10, without interval; rows without it are not in the paper. Ours: on
so many of them, from the front, with the Clopper-Pearson interval; a defense answers by the vote of 10 realizations
that no attack saw. What has no number has not been measured yet. PW-T is the lowest accuracy of its attacks, which is
the paper's rule; the worst of each image is chosen on draws that do not score.

Each folder holds the page of its evaluation (`report.html`), with more statistics, every record and the settings, or
its page with the numbers. `python -m results.tables` makes this page of them."""


@dataclass(frozen=True)
class Entry:
    """One accuracy, the paper's and ours.

    Attributes:
        table, model, attack: where it stands in the paper, or what it is; "" for a table that the paper does not have.
        percent: the paper's accuracy; None where it has none.
        experiment: of ours, which measures it.
        row: how the experiment calls it, or how only this name of its begins.
    """

    table: str
    model: str
    attack: str
    percent: float | None
    experiment: str
    row: str


PW_T = "linf 8/255, lowest of PW-T"
PW_T_EACH = "linf 8/255, worst of each image of PW-T"
BEYOND = (
    "W-NFGA smooth ensemble",
    "W-NFGA smooth mean-field",
    "PGD margin W-NFGA smooth",
    "APGD W-NFGA smooth",
    "W-AIGA from unquantized",
    "W-AIGA ensemble from unquantized",
    "W-AIGA mean-field from unquantized",
    "PGD margin W-AIGA from unquantized",
    "APGD W-AIGA from unquantized",
    "Square",
)
ENTRIES = (
    Entry("1", DEFENSE, "clean", 80.06, "table1", "clean"),
    Entry("1", DEFENSE, "W-NFGA identity", 63.72, "table1", "W-NFGA identity"),
    Entry("1", DEFENSE, "W-NFGA smooth", 61.28, "table1", "W-NFGA smooth"),
    Entry("1", DEFENSE, "PW-T", 39.53, "table1", PW_T),
    Entry("1", DEFENSE, "PW-T, worst of each image", None, "table1", PW_T_EACH),
    Entry("1", DEFENSE, "B-T", 57.76, "table1", "PGD from adversarially trained"),
    Entry("3", "undefended", "clean", 93.10, "table3-undefended", "clean"),
    Entry("3", "undefended", "PGD", 0.0, "table3-undefended", "PGD"),
    Entry("3", "PGD adversarially trained", "clean", 79.41, "table3-adversarial", "clean"),
    Entry("3", "PGD adversarially trained", "margin, N_S 100, N_R 50", 42.05, "worst_case", "50 starts"),
    Entry("3", DEFENSE, "clean", 80.06, "table1", "clean"),
    Entry("3", DEFENSE, "PW-T", 39.53, "table1", PW_T),
    Entry("6", DEFENSE, "PW-T, default", 39.53, "table6", "default"),
    Entry("6", DEFENSE, "PW-T, N_S 100", 38.93, "table6", "N_S 100"),
    Entry("6", DEFENSE, "PW-T, N_E 100", 39.25, "table6", "N_E 100"),
    Entry("6", DEFENSE, "PW-T, N_R 10", 39.38, "table6", "N_R 10"),
    *(Entry("", DEFENSE, name, None, "beyond", name) for name in BEYOND),
    Entry("", DEFENSE, "worst of each image over all attacks", None, "worst_of_all", WORST),
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


def fingerprint_of(folder: Path) -> str | None:
    """That of the model which an experiment measured; None where it has not been run."""
    if (folder / MANIFEST).exists():
        return str(load_json(folder / MANIFEST)["identity"]["model"]["fingerprint"])
    return str(load_json(folder / "results.json")["fingerprint"]) if (folder / "results.json").exists() else None


def require_one_defense(results: Path) -> None:
    """Refuses numbers of several defenses in one table, by the folders that hold them."""
    folders: dict[str, list[str]] = {}
    for experiment in dict.fromkeys(one.experiment for one in ENTRIES if one.model == DEFENSE):
        found = fingerprint_of(results / experiment)
        if found:
            folders.setdefault(found, []).append(str(results / experiment))
    if len(folders) > 1:
        told = "; ".join(f"{', '.join(own)} of {found[:SHOWN_DIGITS]}" for found, own in folders.items())
        raise ValueError(f"results are of {len(folders)} defenses, expected one: {told}")


def rows(results: Path) -> Iterator[tuple[str, ...]]:
    found = {experiment: measured(results / experiment) for experiment in {one.experiment for one in ENTRIES}}
    for one in ENTRIES:
        ours = one_named(found[one.experiment], one.row)
        cells = ours.cells() if ours else ("", "", "")
        link = f"[{one.experiment}]({one.experiment}/)" if ours else one.experiment
        yield one.table, one.model, one.attack, "" if one.percent is None else f"{one.percent:.2f}%", *cells, link


def main(
    results: Annotated[Path, typer.Option(help="Folder with the experiments' folders.")] = Path("results"),
) -> None:
    """Write README.md into the folder of the results, and print its table."""
    require_one_defense(results)
    text = table(HEADER, rows(results), text_columns=3)
    write_page(results, "The paper's tables, measured", [text, NOTES])
    print(text)


if __name__ == "__main__":
    run(main)
