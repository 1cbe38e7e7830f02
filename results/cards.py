"""Cards of the models that ship, written anew with what the attack through the selection leaves of each.

python -m results.cards
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroae.data.datasets import CIFAR10_CLASSES
from neuroae.models import CARD, CONFIG, WEIGHTS, load_pretrained
from neuroae.models.card import model_card
from neuroae.models.description import CLASSES
from neuroae.models.folders import SHIPPED
from neuroae.utils.files import load_json, load_tensors, replacing, save_json
from results.command import run

# The evaluation of each model whose attacks its card names.
EVALUATIONS = {
    "cifar10": "selection",
    "cifar10-unsupervised": "selection-unsupervised",
    "cifar10-unquantized": "selection-unquantized",
    "cifar10-undefended": None,
}
ATTACKS = ("selection", "selection, N_E 10")


def attacked_scores(summary: Mapping[str, Any], ensemble: int) -> list[dict[str, Any]]:
    """As the card reads them, of an evaluation's summary."""
    rows = {row["attack"]: row for row in summary["attacks"]}
    return [
        {
            "data": "cifar10 test",
            "attack": f"{name}, epsilon 8/255",
            "ensemble": ensemble,
            "accuracy": rows[name]["vote"],
            "low": rows[name]["vote_low"],
            "high": rows[name]["vote_high"],
            "images": rows[name]["images"],
        }
        for name in ATTACKS
        if name in rows
    ]


def rewrite(folder: Path, scores: list[dict[str, Any]]) -> None:
    """The configuration with these scores under attacks and the classes' names, and the card that follows from it."""
    config = load_json(folder / CONFIG)
    config["notes"].pop("attacked", None)
    if scores:
        config["notes"]["attacked"] = scores
    # Models that were trained before their classes were kept.
    config["notes"].setdefault(CLASSES, list(CIFAR10_CLASSES))
    save_json(folder / CONFIG, config)
    model, _ = load_pretrained(folder)
    tensors, _ = load_tensors(folder / WEIGHTS)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(model_card(folder.name, model, tensors, config), encoding="utf-8")


def main(
    results: Annotated[Path, typer.Option(help="Folder with the evaluations' folders.")] = Path("results"),
) -> None:
    """Write the cards of all models that ship; an evaluation that is missing leaves a card without its rows."""
    for name, evaluation in EVALUATIONS.items():
        path = results / str(evaluation) / "summary.json"
        scores = []
        if path.exists():
            scoring = load_json(results / str(evaluation) / "manifest.json")["identity"]["scoring"]
            scores = attacked_scores(load_json(path), scoring["draws"])
        rewrite(SHIPPED / name, scores)
        print(f"{SHIPPED / name / CARD}: {len(scores)} attacks")


if __name__ == "__main__":
    run(main)
