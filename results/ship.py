"""Puts a trained model into the package: ``python -m results.ship --help``."""

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from neuroae import Defense
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Evaluation, Results, Scoring, run_evaluation
from neuroae.evaluation.statistics import Estimate
from neuroae.models import load_pretrained, save_pretrained
from neuroae.models.folders import SHIPPED
from neuroae.reports import Row
from neuroae.utils.versions import versions
from results.command import run

ENSEMBLE = 10
SEED = 0
TOLERATED = 3  # of 1,000 images
LICENSE = "apache-2.0"
MEGABYTE = 10**6


@dataclass(frozen=True, eq=False)
class Check:
    """One ensemble size, scored on the same images and masks with the weights as trained and as float16.

    Attributes:
        ensemble: E; 1 is the mean over the draws of an outcome where there are several.
        trained, rounded: outcomes of either.
    """

    ensemble: int
    trained: Results
    rounded: Results

    @property
    def harmless(self) -> bool:
        """Whether the accuracies differ by at most 0.3 points."""
        labels = torch.tensor([record.label for record in self.trained.records[CLEAN]])
        right = [self.answers(outcome) == labels for outcome in (self.trained, self.rounded)]
        difference = int(right[1].sum()) - int(right[0].sum())
        return 1000 * abs(difference) <= TOLERATED * right[0].numel()

    def answers(self, outcome: Results) -> Tensor:
        """(1, N) votes, or (draws, N) for E = 1."""
        records = outcome.records[CLEAN]
        if self.ensemble == len(records[0].draws):
            return torch.tensor([[record.vote for record in records]])
        return torch.tensor([record.draws for record in records]).T

    def accuracy(self, outcome: Results) -> Estimate:
        """As reports have it: of one vote with the interval of Clopper and Pearson, of E = 1 with a bootstrap."""
        if self.ensemble < len(outcome.records[CLEAN][0].draws):
            return outcome.draw_accuracy(CLEAN)
        accuracy = outcome.accuracy(CLEAN)
        return Estimate(accuracy.value, *accuracy.interval())

    def note(self) -> dict[str, Any]:
        """As the model card reads it."""
        return {
            "ensemble": self.ensemble,
            "float32": self.accuracy(self.trained).value,
            "float16": self.accuracy(self.rounded).value,
            "changed": int((self.answers(self.trained) != self.answers(self.rounded)).sum()),
        }


def ship(run: Path, name: str, data: ImageSet, shelf: Path) -> list[Check]:
    """Writes a run's model into ``shelf / name`` with its card, as float16 where every check is harmless.

    Args:
        run: folder that ``neuroae train`` wrote.
        name: that users will load it by: lower-case letters, digits and hyphens.
        data: the test images.
        shelf: where the package keeps its models.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"name is {name!r}, expected lower-case letters, digits and hyphens")
    model, notes = load_pretrained(run)
    checks = check_rounding(model, data)
    half = all(check.harmless for check in checks)
    notes |= {
        "scores": [score(name, data, check, check.rounded if half else check.trained) for check in checks],
        "storage": [check.note() for check in checks],
        "scored_with": versions(),
        "license": LICENSE,
    }
    save_pretrained(model, shelf / name, notes, half)
    return checks


def check_rounding(model: nn.Module, data: ImageSet) -> list[Check]:
    """Scores the model, and what comes back of it from float16; a classifier alone draws nothing, and answers once."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, half=True)
        rounded, _ = load_pretrained(folder)
    draws = ENSEMBLE if isinstance(model, Defense) else 1
    outcomes = [
        run_evaluation(Evaluation(each, data, [], Scoring(draws, SEED), name=title))
        for title, each in {"float32": model, "float16": rounded}.items()
    ]
    return [Check(ensemble, *outcomes) for ensemble in sorted({1, draws})]


def score(name: str, data: ImageSet, check: Check, outcome: Results) -> dict[str, Any]:
    """As the model card reads it."""
    shown = {"data": data.name, "fingerprint": data.fingerprint(), "ensemble": check.ensemble}
    accuracy = check.accuracy(outcome)
    found = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    return shown | asdict(Row.of(name, outcome)) | found


def main(
    run: Annotated[Path, typer.Argument(help="Folder that `neuroae train` wrote.")],
    name: Annotated[str, typer.Argument(help="That users will load the model by.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
) -> None:
    """Score a trained model on the CIFAR-10 test images and put it into neuroae/weights/NAME, with its card."""
    checks = ship(run, name, load_dataset("cifar10", "test", data_dir), SHIPPED)
    for check in checks:
        print(
            f"E = {check.ensemble}: {check.accuracy(check.trained).value:.2%} in float32, "
            f"{check.accuracy(check.rounded).value:.2%} in float16"
        )
    stored = "float16" if all(check.harmless for check in checks) else "float32: float16 changes the accuracy too much"
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED / name} is written, its weights as {stored}; all that ships: {size / MEGABYTE:.1f} MB")


if __name__ == "__main__":
    run(main)
