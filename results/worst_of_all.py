"""What all attacks together leave of the defense: ``python -m results.worst_of_all`` joins evaluations that are done.

An image counts by the attack, or none, that does most harm to it on the selection draws, and is scored by what the
scoring draws say under that attack.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroae.evaluation import CLEAN, Record, Results, load_evaluation
from neuroae.evaluation.checks import Check, Threat
from neuroae.evaluation.checks.outcomes import GRADIENT_FREE, TRANSFER, Verdicts, compare
from neuroae.evaluation.folder import RECORDS
from neuroae.evaluation.statistics import draw_accuracy, persistent_accuracy, vote_accuracy, worst_case
from neuroae.reports.report import digest
from neuroae.reports.tables import budgets, on_common_images
from neuroae.utils.files import save_json
from neuroae.utils.markdown import table
from results.command import run
from results.page import write_page

EVALUATIONS = ("table1", "table6", "beyond", "selection")
WORST = "worst of each image"
COLUMNS = (
    "attack",
    "accuracy",
    "95% interval",
    "E = 1",
    "95% interval",
    "all draws right",
    "95% interval",
    "worst of",
)
NOTE = """\
Accuracies are of the {images:,} images that all of the evaluations attacked: of one vote of the scoring draws
(Clopper-Pearson), of one draw (mean over the draws, bootstrap over images), and of an attacker who may ask as often as
there are draws and needs one wrong answer (images that all draws answer rightly). The last column counts the images to
which an attack does most harm on the selection draws, no attack among them; the last row scores each image under its
own. The budget is {budget}.

Made by `python -m results.worst_of_all` of {evaluations}; `results.json` holds the numbers in full and the versions.
The model's {digest}."""


def load_done(work: Path, names: Sequence[str] = EVALUATIONS) -> dict[str, Results]:
    """The evaluations of these names.

    Raises:
        ValueError: one is not done, or they differ in the model, a source, the data set, the scoring or the budget.
    """
    missing = [name for name in names if not (work / name / RECORDS).exists()]
    if missing:
        raise ValueError(f"{work} lacks {', '.join(missing)} of the evaluations {', '.join(names)}")
    found = {name: load_evaluation(work / name) for name in names}
    require_one(
        "model", {name: results.manifest["identity"]["model"]["fingerprint"] for name, results in found.items()}
    )
    for source in sorted({name for results in found.values() for name in sources(results)}):
        require_one(
            f"source {source!r}",
            {name: sources(results)[source] for name, results in found.items() if source in sources(results)},
        )
    require_one("data set", {name: results.manifest["identity"]["data"]["name"] for name, results in found.items()})
    require_one("scoring", {name: results.manifest["identity"]["scoring"] for name, results in found.items()})
    require_one("budget", {name: ", ".join(map(str, budgets(results))) for name, results in found.items()})
    return found


def sources(results: Results) -> dict[str, str]:
    """Fingerprints of the models that attacks were transferred from, by their names."""
    found = (attack.get("source") for attack in results.manifest["identity"]["attacks"].values())
    return {source["name"]: source["fingerprint"] for source in found if source and source.get("name")}


def require_one(what: str, values: Mapping[str, Any]) -> None:
    """Refuses evaluations that differ in it."""
    if any(value != next(iter(values.values())) for value in values.values()):
        told = "; ".join(f"{name} {value}" for name, value in values.items())
        raise ValueError(f"evaluations have more than one {what}, expected one: {told}")


def joined(found: Mapping[str, Results]) -> dict[str, list[Record]]:
    """Records of every attack of every evaluation on the images that all have; the clean images come first, once."""
    attacks = {CLEAN: next(iter(found.values())).records[CLEAN]}
    for evaluation, results in found.items():
        for name, records in results.records.items():
            if name != CLEAN:
                title = f"{evaluation}: {name}"
                attacks[title] = [replace(record, attack=title) for record in records]
    return on_common_images(attacks)


def comparisons(found: Mapping[str, Results], attacks: Mapping[str, Sequence[Record]]) -> list[Check]:
    """The sanity report's comparisons of white-box attacks with others, over the attacks of all evaluations."""
    threats = [
        replace(Threat.of(name, results.attack(name)), name=f"{evaluation}: {name}")
        for evaluation, results in found.items()
        for name in results.records
        if name != CLEAN
    ]
    verdicts = {name: Verdicts(name, records) for name, records in attacks.items()}
    checks = [compare(comparison, threats, verdicts) for comparison in (TRANSFER, GRADIENT_FREE)]
    return [check for check in checks if check.measured]


def numbers(attack: str, records: Sequence[Record], chosen: int) -> dict[str, Any]:
    """Counts, and fractions in [0, 1], as JSON holds them.

    Args:
        attack: the row's name.
        records: that are counted.
        chosen: of how many images the attack is the worst.
    """
    vote, draw = vote_accuracy(records), draw_accuracy(records)
    low, high = vote.interval()
    one_draw = {"draw": draw.value, "draw_low": draw.low, "draw_high": draw.high}
    lasting = persistent_accuracy(records, vote_draws(records))
    persistent = {"persistent": lasting.value, "persistent_low": lasting.low, "persistent_high": lasting.high}
    accuracy = {"accuracy": vote.value, "low": low, "high": high}
    counts = {"images": vote.images, "correct": vote.correct}
    return {"attack": attack, **counts, **accuracy, **one_draw, **persistent, "chosen": chosen}


def vote_draws(records: Sequence[Record]) -> int:
    """How many draws each image was scored by."""
    return min(len(record.draws) for record in records)


def rows(attacks: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """``numbers`` of each attack, and at the end of the worst of each image."""
    worst = worst_case(attacks)
    chosen = Counter(record.attack for record in worst)
    return [
        *(numbers(name, records, chosen[name]) for name, records in attacks.items()),
        numbers(WORST, worst, len(worst)),
    ]


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = []
    for value, low, high in (
        ("accuracy", "low", "high"),
        ("draw", "draw_low", "draw_high"),
        ("persistent", "persistent_low", "persistent_high"),
    ):
        numbers += [f"{row[value]:.1%}", f"{row[low]:.1%} to {row[high]:.1%}"]
    return row["attack"], *numbers, f"{row['chosen']:,}"


def main(
    work: Annotated[Path, typer.Option(help="Folder with the evaluations' folders.")] = Path("runs"),
    evaluation: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation to join; repeat for several.", show_default=", ".join(EVALUATIONS)),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/worst_of_all"),
) -> None:
    """Join the finished evaluations of the defense, and score the worst of each image over all of their attacks."""
    found = load_done(work, evaluation or EVALUATIONS)
    attacks = joined(found)
    measured = rows(attacks)
    checks = comparisons(found, attacks)
    first = next(iter(found.values()))
    model = first.manifest["identity"]["model"]
    made = {
        name: {"images": len(own.records[CLEAN]), "versions": own.manifest["versions"]} for name, own in found.items()
    }
    numbers_and_checks = {"rows": measured, "checks": [asdict(check) for check in checks]}
    save_json(output / "results.json", model | {"evaluations": made} | numbers_and_checks)
    text = table(COLUMNS, map(cells, measured))
    (budget,) = budgets(first)
    note = NOTE.format(images=measured[0]["images"], budget=budget, evaluations=", ".join(found), digest=digest(model))
    lines = "\n".join(f"- {check.line}" for check in checks)
    write_page(output, "The worst of each image over all attacks", [text, lines, note])
    print(text)


if __name__ == "__main__":
    run(main)
