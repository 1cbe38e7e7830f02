"""The paper's tables with ours beside them: ``python -m results.tables`` reads what the experiments have written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from neuroae.evaluation import CLEAN
from neuroae.evaluation.folder import MANIFEST
from neuroae.reports.report import SHOWN_DIGITS
from neuroae.utils.files import load_json
from neuroae.utils.markdown import table
from results.command import run
from results.page import write_page
from results.worst_of_all import WORST

DEFENSE = "defense"
LOWEST = "lowest"
HEADER = ("table", "model", "attack", "paper", "ours", "95% interval", "images", "made by")
NOTES = """\
Paper: accuracy on the 10,000 test images of CIFAR-10, without interval; rows without it are not in the paper. Ours: on
so many of them, from the front, with the Clopper-Pearson interval; a defense answers by the vote of 10 realizations
that no attack saw. What has no number has not been measured by the experiments of its last column. PW-T is the lowest
accuracy of its attacks, as in the paper, and in Table 6 the attack that was the lowest there, W-AIGA from the
unquantized source; the worst of each image is chosen on draws that do not score. The worst case of Table 3 is the
lowest number of one attack in its folders. Attacks on a defense's gradients were crafted in
bfloat16, those on classifiers and Square in float32; all are scored in float32.{whose}

Each folder holds the page of its evaluation (`report.html`), with more statistics, every record and the settings, or
its page with the numbers. `python -m results.tables` makes this page of them."""


@dataclass(frozen=True)
class Entry:
    """One accuracy, the paper's and ours.

    Attributes:
        table, model, attack: where it stands in the paper, or what it is; "" for a table that the paper does not have.
        percent: the paper's accuracy; None where it has none.
        experiments: of ours, which measure it; several where the lowest is asked for.
        row: how the experiment calls it, or how only this name of its begins; or ``LOWEST`` of all its attacks.
    """

    table: str
    model: str
    attack: str
    percent: float | None
    experiments: tuple[str, ...]
    row: str

    @classmethod
    def of(cls, table: str, model: str, attack: str, percent: float | None, experiment: str, row: str) -> "Entry":
        return cls(table, model, attack, percent, (experiment,), row)


PW_T = "linf 8/255, lowest of PW-T"
PW_T_EACH = "linf 8/255, worst of each image of PW-T"
BEYOND = (
    "W-NFGA smooth ensemble",
    "W-NFGA smooth mean-field",
    "PGD margin W-NFGA smooth",
    "APGD W-NFGA smooth",
    "W-AIGA",
    "W-AIGA from unquantized",
    "W-AIGA ensemble from unquantized",
    "W-AIGA mean-field from unquantized",
    "PGD margin W-AIGA from unquantized",
    "APGD W-AIGA from unquantized",
    "Square",
)
SELECTION = (
    "selection",
    "selection, cross-entropy",
    "selection, targeted",
    "selection, N_E 10",
)
MORE = ("selection, N_S 100", "selection, N_E 40")
ENTRIES = (
    Entry.of("1", DEFENSE, "clean", 80.06, "table1", "clean"),
    Entry.of("1", DEFENSE, "W-NFGA identity", 63.72, "table1", "W-NFGA identity"),
    Entry.of("1", DEFENSE, "W-NFGA smooth", 61.28, "table1", "W-NFGA smooth"),
    Entry.of("1", DEFENSE, "PW-T", 39.53, "table1", PW_T),
    Entry.of("1", DEFENSE, "PW-T, worst of each image", None, "table1", PW_T_EACH),
    Entry.of("1", DEFENSE, "B-T", 57.76, "table1", "PGD from adversarially trained"),
    Entry.of("3", "undefended", "clean", 93.10, "table3-undefended", "clean"),
    Entry.of("3", "undefended", "PGD", 0.0, "table3-undefended", "PGD"),
    Entry.of("3", "PGD adversarially trained", "clean", 79.41, "table3-adversarial", "clean"),
    Entry.of("3", "PGD adversarially trained", "margin, N_S 100, N_R 50", None, "worst_case", "50 starts"),
    Entry("3", "PGD adversarially trained", "worst case", 42.05, ("worst_case", "table3-adversarial"), LOWEST),
    Entry.of("3", DEFENSE, "clean", 80.06, "table1", "clean"),
    Entry("3", DEFENSE, "worst case", 39.53, ("table1",), LOWEST),
    Entry("3", DEFENSE, "lowest with selection", None, ("table1", "selection"), LOWEST),
    Entry.of("6", DEFENSE, "PW-T, default", 39.53, "table6", "default"),
    Entry.of("6", DEFENSE, "PW-T, N_S 100", 38.93, "table6", "N_S 100"),
    Entry.of("6", DEFENSE, "PW-T, N_E 100", 39.25, "table6", "N_E 100"),
    Entry.of("6", DEFENSE, "PW-T, N_R 10", 39.38, "table6", "N_R 10"),
    *(Entry.of("", DEFENSE, name, None, "selection", name) for name in SELECTION),
    *(Entry.of("", DEFENSE, name, None, "selection-more", name) for name in MORE),
    *(
        Entry.of("", source, f"{name} of {source}", None, f"selection-{source}", name)
        for source in ("unsupervised", "unquantized")
        for name in ("clean", "selection", "selection, N_E 10")
    ),
    *(Entry.of("", DEFENSE, name, None, "beyond", name) for name in BEYOND),
    Entry.of("", DEFENSE, "worst of each image over all attacks", None, "worst_of_all", WORST),
    Entry.of("", DEFENSE, "worst of each image, Table 1 and selection", None, "worst_of_1000", WORST),
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


def the_defense(results: Path) -> str | None:
    """The fingerprint of the defense in the table; None where nothing has been measured.

    Raises:
        ValueError: there are numbers of several; the message names their folders.
    """
    folders: dict[str, list[str]] = {}
    for experiment in dict.fromkeys(name for one in ENTRIES if one.model == DEFENSE for name in one.experiments):
        found = fingerprint_of(results / experiment)
        if found:
            folders.setdefault(found, []).append(str(results / experiment))
    if len(folders) > 1:
        told = "; ".join(f"{', '.join(own)} of {found[:SHOWN_DIGITS]}" for found, own in folders.items())
        raise ValueError(f"results are of {len(folders)} defenses, expected one: {told}")
    return next(iter(folders), None)


def lowest(found: Sequence[Mapping[str, Measured]]) -> Measured | None:
    """Of single attacks; None unless all experiments have been run."""
    attacked = (row for rows in found for name, row in rows.items() if name != CLEAN and WORST not in name)
    return min(attacked, key=lambda row: row.value) if all(found) else None


def rows(results: Path) -> Iterator[tuple[str, ...]]:
    found = {name: measured(results / name) for one in ENTRIES for name in one.experiments}
    for one in ENTRIES:
        own = [found[name] for name in one.experiments]
        ours = lowest(own) if one.row == LOWEST else one_named(own[0], one.row)
        cells = ours.cells() if ours else ("", "", "")
        links = ", ".join(f"[{name}]({name}/)" if ours else name for name in one.experiments)
        yield one.table, one.model, one.attack, "" if one.percent is None else f"{one.percent:.2f}%", *cells, links


def main(
    results: Annotated[Path, typer.Option(help="Folder with the experiments' folders.")] = Path("results"),
) -> None:
    """Write README.md into the folder of the results, and print its table."""
    defense = the_defense(results)
    whose = f" The defense has the fingerprint {defense[:SHOWN_DIGITS]}…." if defense else ""
    text = table(HEADER, rows(results), text_columns=3)
    write_page(results, "The paper's tables, measured", [text, NOTES.format(whose=whose)])
    print(text)


if __name__ == "__main__":
    run(main)
