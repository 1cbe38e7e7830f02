"""The tables that join several evaluations, from their committed records.

- The paper's tables beside ours: ``README.md`` of the results folder.
- The worst of each image over several evaluations of the defense. For each image, the selection draws choose the
  attack, or none, that does most harm to it; the scoring draws then score the image under that attack.
- Our attacks beside those of other libraries, from the evaluation ``crosscheck``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from neuroae.evaluation import CLEAN, Record, Results, load_evaluation
from neuroae.evaluation.checks import Check, Threat
from neuroae.evaluation.checks.outcomes import GRADIENT_FREE, TRANSFER, Verdicts, compare
from neuroae.evaluation.folder import MANIFEST, RECORDS
from neuroae.evaluation.statistics import draw_accuracy, persistent_accuracy, vote_accuracy, worst_case
from neuroae.reports.report import SHOWN_DIGITS, digest
from neuroae.reports.tables import budgets, on_common_images
from neuroae.utils.files import load_json
from neuroae.utils.markdown import table
from results.entries import DEFENSE, ENTRIES, LOWEST, WORST
from results.inputs import attack_names, identity
from results.options import OUTPUT, Output
from results.outputs import NUMBERS, accuracy_numbers, interval_cell, write_results

HEADER = ("table", "model", "attack", "paper", "ours", "95% interval", "images", "made by")
NOTE = """\
Paper: accuracy on the 10,000 test images of CIFAR-10, and in Table 4 on the validation images of Imagenette, without
an interval; rows without it are not in the paper. Ours: accuracy on the first test images, as many as the row says,
with the Clopper-Pearson interval; a defense answers by the vote of 10 realizations that no attack saw. A row without a
number waits for the experiments in its last column.

"defense" is the shipped model of 70 epochs, and "unsupervised decoder" the shipped one of 30 and 30. The other models
of Tables 2, 4 and 5 learn on shorter schedules than the paper's (`python -m results queue`), the defenses of Tables 2
and 5 for 12 epochs. Published classifiers, and in Table 5 the blur and the dropout, have the weights that came with
the paper.

PW-T are transfers from defenses with unsupervised decoders, and B-T is a transfer from an adversarially trained
classifier. W-NFGA sends gradients through the surviving coefficients, and W-AIGA takes the autoencoder for the
identity. PW-T is the lowest accuracy of its attacks, as in the paper; in Table 6 it is the paper's lowest attack,
W-AIGA from the unquantized source. The worst of each image is chosen on draws that do not score. The worst case of
Table 3 is the lowest accuracy under a single attack in its folders. Attacks on a defense's gradients were crafted in
bfloat16, those on classifiers and Square in float32; all are scored in float32.{defense}

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
    text = table(HEADER, entry_rows(output), text_columns=3)
    waiting = missing_experiments(output)
    parts = [text, NOTE.format(defense=sentence)]
    if waiting:
        parts.insert(1, f"Not measured yet: {', '.join(f'`{name}`' for name in waiting)}.")
    write_results(output, "The paper's tables, measured", parts)


def missing_experiments(folder: Path) -> list[str]:
    """Returns the experiments of the table without numbers, in the order of the table."""
    names = dict.fromkeys(name for each in ENTRIES for name in each.experiments)
    return [name for name in names if not read_measured(folder / name)]


def entry_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each entry; our cells are empty if nothing has been measured."""
    measured = {name: read_measured(folder / name) for each in ENTRIES for name in each.experiments}
    for each in ENTRIES:
        rows = [measured[name] for name in each.experiments]
        ours = lowest(rows) if each.row == LOWEST else row_named(rows[0], each.row)
        cells = ours.cells() if ours else ("", "", "")
        links = ", ".join(f"[{name}]({name}/)" if ours else name for name in each.experiments)
        yield (
            each.table,
            each.model,
            each.attack,
            "" if each.percent is None else f"{each.percent:.2f}%",
            *cells,
            links,
        )


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


WORST_COLUMNS = (
    "attack",
    "accuracy",
    "95% interval",
    "E = 1",
    "95% interval",
    "all draws right",
    "95% interval",
    "worst of",
)
WORST_NOTE = """\
Accuracies are of the {images:,} images that all of the evaluations attacked, in three ways: of one vote of the scoring
draws (Clopper-Pearson interval); of one draw, E = 1 (mean over the draws, bootstrap over images); and against an
attacker who may ask as often as there are draws and needs one wrong answer, so that an image counts as right only if
all draws are. The last column counts the images to which an attack, or none, does most harm on the selection draws.
The last row scores each image under that attack. The budget is {budget}.

Made by `python -m results {command}` from the evaluations {evaluations}; `results.json` holds the numbers in full and
the versions. The model's {digest}."""


def worst_of_all(output: Output = OUTPUT) -> None:
    """The worst of each image over all attacks."""
    write_worst(output, "worst_of_all", ("table1", "table6", "beyond", "selection"))


def worst_of_1000(output: Output = OUTPUT) -> None:
    """The worst of each image over Table 1 and selection."""
    write_worst(output, "worst_of_1000", ("table1", "selection", "selection-more"))


def write_worst(output: Path, name: str, evaluations: Sequence[str]) -> None:
    """Joins finished evaluations of the defense, and scores the worst of each image over all of their attacks."""
    joined = load_joined(output, evaluations)
    attacks = common_records(joined)
    rows = worst_rows(attacks)
    checks = comparisons(joined, attacks)
    first = next(iter(joined.values()))
    model = identity(first)["model"]
    versions = {
        evaluation: {"images": len(results.records[CLEAN]), "versions": results.manifest["versions"]}
        for evaluation, results in joined.items()
    }
    (budget,) = budgets(first)
    note = WORST_NOTE.format(
        images=rows[0]["images"],
        budget=budget,
        command=name,
        evaluations=", ".join(evaluations),
        digest=digest(model),
    )
    write_results(
        output / name,
        "The worst of each image over all attacks",
        [
            table(WORST_COLUMNS, map(worst_cells, rows)),
            *(["\n".join(f"- {check.line}" for check in checks)] if checks else []),
            note,
        ],
        model | {"evaluations": versions, "rows": rows, "checks": [asdict(check) for check in checks]},
    )


def load_joined(folder: Path, names: Sequence[str]) -> dict[str, Results]:
    """Returns finished evaluations by their names.

    Raises:
        ValueError: An evaluation is missing, or they differ in model, source, data set, scoring or budget.
    """
    missing = [name for name in names if not (folder / name / RECORDS).exists()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)} of the evaluations {', '.join(names)}")
    joined = {name: load_evaluation(folder / name) for name in names}
    require_one("model", {name: identity(each)["model"]["fingerprint"] for name, each in joined.items()})
    sources = {name: source_fingerprints(each) for name, each in joined.items()}
    for source in sorted({source for each in sources.values() for source in each}):
        values = {name: each[source] for name, each in sources.items() if source in each}
        require_one(f"source {source!r}", values)
    require_one("data set", {name: identity(each)["data"]["name"] for name, each in joined.items()})
    require_one("scoring", {name: identity(each)["scoring"] for name, each in joined.items()})
    require_one("budget", {name: ", ".join(map(str, budgets(each))) for name, each in joined.items()})
    return joined


def source_fingerprints(results: Results) -> dict[str, str]:
    """Returns the fingerprints of the models that attacks were transferred from, by their names."""
    sources = (attack.get("source") for attack in identity(results)["attacks"].values())
    return {source["name"]: source["fingerprint"] for source in sources if source and source.get("name")}


def require_one(quantity: str, values: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` for evaluations with different values."""
    if any(value != next(iter(values.values())) for value in values.values()):
        listing = "; ".join(f"{name} {value}" for name, value in values.items())
        raise ValueError(f"evaluations have more than one {quantity}, expected one: {listing}")


def common_records(joined: Mapping[str, Results]) -> dict[str, list[Record]]:
    """Returns each attack's records of the images that all evaluations have. The clean images come first, once."""
    attacks = {CLEAN: next(iter(joined.values())).records[CLEAN]}
    for evaluation, results in joined.items():
        for name in attack_names(results):
            title = f"{evaluation}: {name}"
            attacks[title] = [replace(record, attack=title) for record in results.records[name]]
    return on_common_images(attacks)


def comparisons(joined: Mapping[str, Results], attacks: Mapping[str, Sequence[Record]]) -> list[Check]:
    """Returns the sanity report's comparisons of white-box attacks with others, over all evaluations."""
    threats = [
        replace(Threat.of(name, results.attack(name)), name=f"{evaluation}: {name}")
        for evaluation, results in joined.items()
        for name in attack_names(results)
    ]
    verdicts = {name: Verdicts(name, records) for name, records in attacks.items()}
    checks = [compare(comparison, threats, verdicts) for comparison in (TRANSFER, GRADIENT_FREE)]
    return [check for check in checks if check.measured]


def worst_rows(attacks: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """Returns the numbers of each attack, and last those of the worst of each image."""
    worst = worst_case(attacks)
    counts = Counter(record.attack for record in worst)
    return [
        *(worst_numbers(name, records, counts[name]) for name, records in attacks.items()),
        worst_numbers(WORST, worst, len(worst)),
    ]


def worst_numbers(attack: str, records: Sequence[Record], num_worst: int) -> dict[str, Any]:
    """Returns counts, and accuracies in [0, 1], for JSON.

    Args:
        attack: The row's name.
        records: Its records.
        num_worst: The number of images for which the attack is the worst.
    """
    vote, draw = vote_accuracy(records), draw_accuracy(records)
    persistent = persistent_accuracy(records, min(len(record.draws) for record in records))
    return {
        "attack": attack,
        "images": vote.images,
        "correct": vote.correct,
        **accuracy_numbers(vote),
        **{"draw": draw.value, "draw_low": draw.low, "draw_high": draw.high},
        **{"persistent": persistent.value, "persistent_low": persistent.low, "persistent_high": persistent.high},
        "chosen": num_worst,
    }


def worst_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (
        ("accuracy", "low", "high"),
        ("draw", "draw_low", "draw_high"),
        ("persistent", "persistent_low", "persistent_high"),
    )
    numbers = [
        cell for value, *ends in names for cell in (f"{row[value]:.1%}", interval_cell(*(row[end] for end in ends)))
    ]
    return row["attack"], *numbers, f"{row['chosen']:,}"


OURS = "ours"  # the library of our attacks, in the names of the crosscheck's attacks: ATTACK, LIBRARY
CROSSCHECK_COLUMNS = (
    "attack",
    "library",
    "accuracy",
    "95% interval",
    "verdicts equal to ours",
    "l-infinity x 255",
    "seconds",
)
CROSSCHECK_NOTE = """\
The model is the {model}; the images are the first {images:,} of {data}. Epsilon is 8/255 and the step 1/225. PGD
starts at the image. APGD starts at a random point, each library at its own, because that of torchattacks always does.
A verdict is whether the model, in float32, is still right; "l-infinity" is the largest perturbation, measured in
double precision. The seconds say what to expect, and compare nothing: other work may have run beside some of the
attacks.

foolbox has no margin loss, and that of torchattacks is cut off at 0. Both were given one: foolbox's `LinfPGD` by
overriding `get_loss_fn`, as its source suggests; torchattacks' `UPGD` by its argument `loss`, which takes a function,
with `decay=0`, which makes it PGD.

Made by `python -m results crosscheck --data-dir DIR --weights FILE`; `report.html` and the files beside it hold the
evaluation in full and the versions."""


def write_crosscheck(folder: Path) -> None:
    """Writes the page of the evaluation ``crosscheck`` into its folder."""
    results = load_evaluation(folder)
    text = table(CROSSCHECK_COLUMNS, crosscheck_rows(results), text_columns=2)
    data = identity(results)["data"]
    note = CROSSCHECK_NOTE.format(model=results.model, images=data["images"], data=data["name"])
    write_results(folder, "Our attacks beside foolbox and torchattacks", [text, note])


def crosscheck_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each attack of each library."""
    for name in attack_names(results):
        attack, _, library = name.rpartition(", ")
        records, ours = results.records[name], results.records[f"{attack}, {OURS}"]
        accuracy = vote_accuracy(records)
        equal = sum(
            (record.vote == record.label) == (other.vote == other.label)
            for record, other in zip(records, ours, strict=True)
        )
        yield (
            attack,
            library,
            f"{accuracy.value:.1%}",
            interval_cell(*accuracy.interval()),
            "" if library == OURS else f"{equal / len(records):.1%}",
            f"{255 * max(record.linf for record in records):.5f}",
            f"{results.seconds[name]:.0f}",
        )
