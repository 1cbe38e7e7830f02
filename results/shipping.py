"""The models that ship with the package: adding a trained model, and rewriting the models' cards."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from neuroae import Defense
from neuroae.data import ImageSet
from neuroae.data.datasets import CIFAR10_CLASSES
from neuroae.evaluation import CLEAN
from neuroae.evaluation.statistics import Estimate, draw_accuracy, vote_accuracy
from neuroae.models import CARD, CONFIG, WEIGHTS, load_pretrained, save_pretrained
from neuroae.models.card import model_card
from neuroae.models.description import CLASSES
from neuroae.models.folders import SHIPPED
from neuroae.utils.files import load_json, load_tensors, replacing, save_json
from neuroae.utils.versions import versions
from results.inputs import cifar10_test
from results.options import OUTPUT, DataDir, Output
from results.runs import CleanScores, score_clean

ENSEMBLE = 10
SEED = 0
TOLERATED = 3  # the change in accuracy by rounding, in images of 1,000
LICENSE = "apache-2.0"
MEGABYTE = 10**6
# For each model that ships, the evaluation whose attacks its card names.
EVALUATIONS = {
    "cifar10": "selection",
    "cifar10-unsupervised": "selection-unsupervised",
    "cifar10-unquantized": "selection-unquantized",
    "cifar10-undefended": None,
}
ATTACKS = ("selection", "selection, N_E 10")


def ship(
    run: Annotated[Path, typer.Argument(help="The folder that `neuroae train` wrote.")],
    name: Annotated[str, typer.Argument(help="The name that users load the model by.")],
    data_dir: DataDir,
) -> None:
    """Scores a trained model and ships it."""
    checks = ship_model(run, name, cifar10_test(data_dir), SHIPPED)
    for check in checks:
        print(
            f"E = {check.ensemble}: {check.accuracy(check.trained).value:.2%} in float32, "
            f"{check.accuracy(check.rounded).value:.2%} in float16"
        )
    storage = (
        "float16" if all(check.harmless for check in checks) else "float32: float16 changes the accuracy too much"
    )
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED / name} is written, its weights as {storage}; all that ships: {size / MEGABYTE:.1f} MB")


@dataclass(frozen=True, eq=False)
class RoundingCheck:
    """One ensemble size, scored on the same images and masks with the weights as trained and as float16.

    Attributes:
        ensemble: E; 1 is the mean over the scoring draws where there are several.
        trained, rounded: The scores with the weights as trained, and as float16.
    """

    ensemble: int
    trained: CleanScores
    rounded: CleanScores

    @property
    def harmless(self) -> bool:
        """Whether the accuracies differ by at most 0.3 points."""
        trained, rounded = (self.is_right(scores) for scores in (self.trained, self.rounded))
        return 1000 * abs(int(rounded.sum()) - int(trained.sum())) <= TOLERATED * trained.numel()

    def is_vote(self, scores: CleanScores) -> bool:
        """Returns whether the ensemble consists of all scoring draws, so that its answer is their vote."""
        return self.ensemble == len(scores.records[0].draws)

    def answers(self, scores: CleanScores) -> Tensor:
        """Returns (N, 1) votes, or (N, draws) for E = 1."""
        is_vote = self.is_vote(scores)
        return torch.tensor([[record.vote] if is_vote else record.draws for record in scores.records])

    def is_right(self, scores: CleanScores) -> Tensor:
        """Returns bool in the shape of ``answers``."""
        return self.answers(scores) == torch.tensor([[record.label] for record in scores.records])

    def accuracy(self, scores: CleanScores) -> Estimate:
        """Returns the vote's accuracy (Clopper-Pearson interval), or that of E = 1 (bootstrap over images)."""
        if not self.is_vote(scores):
            return draw_accuracy(scores.records)
        accuracy = vote_accuracy(scores.records)
        return Estimate(accuracy.value, *accuracy.interval())

    def note(self) -> dict[str, Any]:
        """Returns what the model card says about rounding."""
        return {
            "ensemble": self.ensemble,
            "float32": self.accuracy(self.trained).value,
            "float16": self.accuracy(self.rounded).value,
            "changed": int((self.answers(self.trained) != self.answers(self.rounded)).sum()),
        }


def ship_model(run: Path, name: str, data: ImageSet, shelf: Path) -> list[RoundingCheck]:
    """Writes a run's model into ``shelf / name`` with its card, in float16 where every check is harmless.

    Args:
        run: The folder that ``neuroae train`` wrote.
        name: The name that users load the model by: lower-case letters, digits and hyphens.
        data: The test images.
        shelf: The folder of the package's models.

    Raises:
        ValueError: The name has other characters.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"name is {name!r}, expected lower-case letters, digits and hyphens")
    model, notes = load_pretrained(run)
    checks = check_rounding(model, data)
    half = all(check.harmless for check in checks)
    notes |= {
        "scores": [clean_score(name, data, check, check.rounded if half else check.trained) for check in checks],
        "storage": [check.note() for check in checks],
        "scored_with": versions(),
        "license": LICENSE,
    }
    save_pretrained(model, shelf / name, notes, half)
    return checks


def check_rounding(model: nn.Module, data: ImageSet) -> list[RoundingCheck]:
    """Scores the model as trained and with its weights in float16. E is 1 for a classifier, which draws nothing."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, half=True)
        rounded, _ = load_pretrained(folder)
    draws = ENSEMBLE if isinstance(model, Defense) else 1
    scores = [
        score_clean(each, data, draws, SEED, title) for title, each in {"float32": model, "float16": rounded}.items()
    ]
    return [RoundingCheck(size, *scores) for size in sorted({1, draws})]


def clean_score(name: str, data: ImageSet, check: RoundingCheck, scores: CleanScores) -> dict[str, Any]:
    """Returns a score on clean images, for the model card."""
    accuracy = check.accuracy(scores)
    return {
        "data": data.name,
        "fingerprint": data.fingerprint(),
        "ensemble": check.ensemble,
        "model": name,
        "attack": CLEAN,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "images": len(scores.records),
        "seconds": scores.seconds,
        "passes": 0,
        "unusable": 0,
    }


def cards(output: Output = OUTPUT) -> None:
    """Rewrites the cards of the models that ship."""
    for name, evaluation in EVALUATIONS.items():
        folder = output / str(evaluation)
        scores = []
        if (folder / "summary.json").exists():
            scoring = load_json(folder / "manifest.json")["identity"]["scoring"]
            scores = attacked_scores(load_json(folder / "summary.json"), scoring["draws"])
        rewrite_card(SHIPPED / name, scores)
        print(f"{SHIPPED / name / CARD}: {len(scores)} attacks")


def attacked_scores(summary: Mapping[str, Any], ensemble: int) -> list[dict[str, Any]]:
    """Returns scores under attacks, for the model card, from the summary of an evaluation with E draws."""
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


def rewrite_card(folder: Path, scores: list[dict[str, Any]]) -> None:
    """Puts scores under attacks and the classes' names into a model's configuration, and rewrites its card."""
    config = load_json(folder / CONFIG)
    config["notes"].pop("attacked", None)
    if scores:
        config["notes"]["attacked"] = scores
    # Earlier versions trained models without saving their classes.
    config["notes"].setdefault(CLASSES, list(CIFAR10_CLASSES))
    save_json(folder / CONFIG, config)
    model, _ = load_pretrained(folder)
    tensors, _ = load_tensors(folder / WEIGHTS)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(model_card(folder.name, model, tensors, config), encoding="utf-8")
