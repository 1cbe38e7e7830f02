"""The worst of each image over several evaluations of the defense, from their committed records.

For each image, the selection draws choose the attack, or none, that does most harm to it; the scoring draws then score
the image under that attack.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from neuroae.evaluation import CLEAN, Record, Results, load_evaluation
from neuroae.evaluation.checks import Check, Threat
from neuroae.evaluation.checks.outcomes import GRADIENT_FREE, TRANSFER, Verdicts, compare
from neuroae.evaluation.folder import RECORDS
from neuroae.evaluation.statistics import draw_accuracy, persistent_accuracy, vote_accuracy, worst_case
from neuroae.reports.report import digest
from neuroae.reports.tables import budgets, on_common_images
from neuroae.utils.markdown import table
from results.entries import WORST
from results.inputs import attack_names, identity
from results.options import OUTPUT, Output
from results.outputs import accuracy_numbers, interval_cell, write_results

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

Made by `python -m results {command}` from the evaluations {evaluations};
`results.json` holds the numbers in full and the versions. The model's {digest}."""


def worst_of_all(output: Output = OUTPUT) -> None:
    """The worst of each image over all attacks."""
    write_worst(output, "worst_of_all", ("table1", "table6", "beyond", "selection", "selection-more"))


def worst_of_1000(output: Output = OUTPUT) -> None:
    """The worst of each image, Table 1 and selection."""
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
