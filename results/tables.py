"""The page of results: the paper's tables beside ours, and where its figures are, from the committed evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroae.evaluation import CLEAN
from neuroae.evaluation.folder import MANIFEST
from neuroae.reports.report import SHOWN_DIGITS
from neuroae.utils.files import load_json
from neuroae.utils.markdown import table
from results.entries import DEFENSE, ENTRIES, LOWEST, WORST, Entry
from results.options import OUTPUT, Output
from results.outputs import NUMBERS, interval_cell, write_results

HEADER = ("model", "attack", "paper", "ours", "95% interval", "images", "made by")
TITLES = {
    "1": "Table 1: attacks on the defense",
    "2": "Table 2: the defense without one of its parts",
    "3": "Table 3: other defenses, in the worst case",
    "4": "Table 4: Imagenette",
    "5": "Table 5: other T and p, and other architectures",
    "6": "Table 6: larger budgets",
    "": "What the paper does not have",
}
# The paper's figures that show measurements: what they show, and the pictures of ours.
FIGURES = {
    "2": ("coefficients of a patch beside activations of a classifier", ("dictionary/figure2.png",)),
    "4": (
        "the share of patches that an attack corrupts; the second also through the selection, on 200 images",
        ("corruption/figure4.png", "figures/corruption/figure4.png"),
    ),
    "5": ("ten more patches in the style of Figure 2", ("dictionary/figure5.png",)),
    "6": (
        "accuracy against the number of realizations that vote; the second also through the selection, on 200 images",
        ("ensemble/ensemble.png", "figures/ensemble/ensemble.png"),
    ),
    "9": ("images before and after the autoencoder, clean and attacked", ("autoencoder/autoencoder.png",)),
}
FIGURE_HEADER = ("figure", "shows", "pictures")
READING = """\
- **What agrees with the paper.** The shipped defense is a few points less accurate on clean images, and W-NFGA leaves
  as much of it (Table 1). W-AIGA does no harm to a supervised decoder, and transfers from an unsupervised one do more
  harm than gradients through the survivors (Tables 1 and 2). Adversarially trained classifiers keep about what the
  paper says (Table 3), and other classifiers keep nothing, whatever stands before them (Tables 3 and 5). More steps,
  realizations and restarts do not help the paper's attacks (Table 6).
- **What does not.** PW-T leaves more of the shipped defense than in the paper, and B-T leaves less; PW-T leaves less
  of classifiers behind a blur and with dropout. These are transfers, and our sources have other weights. A defense of
  12 epochs withstands W-NFGA less than the paper's, and transfers as well. The classifier trained by TRADES keeps less
  than in the paper, because the margin does it more harm than the cross-entropy.
- **What the paper could not see.** The gradient through the selection leaves a fraction of what each of the paper's
  attacks leaves, of every defense in these tables. By that measure the defense is far weaker than adversarial
  training.

[Robustness](../docs/robustness.md) discusses the numbers, and [the experiments](../docs/results.md) has the command
behind each."""
NOTE = """\
Paper: accuracy on the 10,000 test images of CIFAR-10, and in Table 4 on the validation images of Imagenette, without
an interval; rows without it are not in the paper. Ours: accuracy on the first test images, as many as the row says,
with the Clopper-Pearson interval; a defense answers by the vote of 10 realizations that no attack saw. A row without a
number of ours waits for the experiments in its last column.

"defense" is the shipped model of 70 epochs, and "unsupervised decoder" the shipped one of 30 and 30. The other models
of Tables 2, 4 and 5 learn on shorter schedules than the paper's (`python -m results queue`), the defenses of Tables 2
and 5 for 12 epochs. Published classifiers, and in Table 5 the blur and the dropout, have the weights that came with
the paper.

PW-T are transfers from defenses with unsupervised decoders, and B-T is a transfer from an adversarially trained
classifier. W-NFGA sends gradients through the surviving coefficients, and W-AIGA takes the autoencoder for the
identity. PW-T is the lowest accuracy of its attacks, as in the paper; in Table 6 it is the paper's lowest attack,
W-AIGA from the unquantized source. In Table 2 the paper's PW-T is the lowest over sources with unsupervised decoders
of four kinds: the two shipped ones, and as other sources those without dropout and without top T. Its lowest came from
the unquantized one, and without top T from the one without top T. The worst of each image is chosen on draws that do
not score. The worst case of Table 3 is the lowest accuracy under a single attack in its folders. Attacks on a
defense's gradients were crafted in bfloat16, those on classifiers and Square in float32; all are scored in
float32.{defense}

Each folder has the page of its evaluation (`report.html`), with more statistics, every record and the settings, or a
page with its numbers. `python -m results tables` makes this page from them."""


@dataclass(frozen=True)
class Measured:
    """An accuracy of ours, in [0, 1], with the ends of its 95% interval."""

    value: float
    low: float
    high: float
    images: int

    def cells(self) -> tuple[str, str, str]:
        return f"{self.value:.1%}", interval_cell(self.low, self.high), f"{self.images:,}"


def tables(output: Output = OUTPUT) -> None:
    """The paper's tables beside ours, as README.md."""
    defense = fingerprint_of_defense(output)
    sentence = f" The defense has the fingerprint {defense[:SHOWN_DIGITS]}…." if defense else ""
    waiting = missing_experiments(output)
    parts = [READING]
    if waiting:
        parts.append(f"Not measured yet: {', '.join(f'`{name}`' for name in waiting)}.")
    for number, title in TITLES.items():
        entries = [each for each in ENTRIES if each.table == number]
        parts += [f"## {title}", table(HEADER, entry_rows(output, entries), text_columns=2)]
    parts += ["## Figures", table(FIGURE_HEADER, figure_rows(output), text_columns=3)]
    parts += ["## Notes", NOTE.format(defense=sentence)]
    write_results(output, "The paper's tables and figures, measured", parts)


def missing_experiments(folder: Path) -> list[str]:
    """Returns the experiments of the table without numbers, in the order of the table."""
    names = dict.fromkeys(name for each in ENTRIES for name in each.experiments)
    return [name for name in names if not read_measured(folder / name)]


def entry_rows(folder: Path, entries: Sequence[Entry]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each entry; our cells are empty if nothing has been measured."""
    measured = {name: read_measured(folder / name) for each in entries for name in each.experiments}
    for each in entries:
        rows = [measured[name] for name in each.experiments]
        ours = lowest(rows) if each.row == LOWEST else row_named(rows[0], each.row)
        cells = ours.cells() if ours else ("", "", "")
        links = ", ".join(f"[{name}]({name}/)" if ours else name for name in each.experiments)
        yield each.model, each.attack, "" if each.percent is None else f"{each.percent:.2f}%", *cells, links


def figure_rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields the cells of each figure, with links to the pictures that exist."""
    for number, (shows, pictures) in FIGURES.items():
        links = [f"[{picture}]({picture})" for picture in pictures if (folder / picture).exists()]
        yield number, shows, ", ".join(links) or "not drawn yet"


def read_measured(folder: Path) -> dict[str, Measured]:
    """Returns an experiment's accuracies by the names of their rows; none if it has not been run."""
    if (folder / "summary.json").exists():
        summary = load_json(folder / "summary.json")
        rows = [*summary["attacks"], *summary["together"]]
        return {row["attack"]: Measured(row["vote"], row["vote_low"], row["vote_high"], row["images"]) for row in rows}
    if (folder / NUMBERS).exists():
        rows = load_json(folder / NUMBERS)["rows"]
        return {row["attack"]: Measured(row["accuracy"], row["low"], row["high"], row["images"]) for row in rows}
    return {}


def row_named(measured: Mapping[str, Measured], name: str) -> Measured | None:
    """Returns the row of this name, or the one row whose name begins with it; None if nothing has been measured.

    Raises:
        ValueError: There are rows, but not exactly one such row.
    """
    if not measured or name in measured:
        return measured.get(name)
    matches = [other for other in measured if other.startswith(name)]
    if len(matches) != 1:
        raise ValueError(f"{len(matches)} rows are named {name!r}..., expected one of {', '.join(measured)}")
    return measured[matches[0]]


def lowest(experiments: Sequence[Mapping[str, Measured]]) -> Measured | None:
    """Returns the lowest accuracy under a single attack; None unless all experiments have been run."""
    attacked = (row for rows in experiments for name, row in rows.items() if name != CLEAN and WORST not in name)
    return min(attacked, key=lambda row: row.value) if all(experiments) else None


def fingerprint_of_defense(folder: Path) -> str | None:
    """Returns the fingerprint of the defense in the table; None if nothing has been measured.

    Raises:
        ValueError: The numbers belong to several defenses; the message names their folders.
    """
    folders: dict[str, list[str]] = {}
    for experiment in dict.fromkeys(name for each in ENTRIES if each.model == DEFENSE for name in each.experiments):
        fingerprint = read_fingerprint(folder / experiment)
        if fingerprint:
            folders.setdefault(fingerprint, []).append(str(folder / experiment))
    if len(folders) > 1:
        listing = "; ".join(f"{', '.join(names)} of {digits[:SHOWN_DIGITS]}" for digits, names in folders.items())
        raise ValueError(f"results are of {len(folders)} defenses, expected one: {listing}")
    return next(iter(folders), None)


def read_fingerprint(folder: Path) -> str | None:
    """Returns the fingerprint of the model that an experiment measured; None if it has not been run."""
    if (folder / MANIFEST).exists():
        return str(load_json(folder / MANIFEST)["identity"]["model"]["fingerprint"])
    return str(load_json(folder / NUMBERS)["fingerprint"]) if (folder / NUMBERS).exists() else None
