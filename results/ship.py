"""Puts a trained model into the package: ``python -m results.ship --help``."""

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from neuroae import Defense
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import Outcome, evaluate
from neuroae.pretrained import load_pretrained, save_pretrained
from neuroae.pretrained.folders import SHIPPED
from neuroae.reports import Row
from neuroae.versions import versions
from results.command import run

ENSEMBLES = (1, 10)
SEED = 0
TOLERATED = 3  # of 1,000 images
LICENSE = "apache-2.0"
MEGABYTE = 10**6


@dataclass(frozen=True, eq=False)
class Check:
    """One ensemble size, scored on the same images and masks with the weights as trained and as float16.

    Attributes:
        ensemble: E.
        trained, rounded: outcomes of either.
    """

    ensemble: int
    trained: Outcome
    rounded: Outcome

    @property
    def harmless(self) -> bool:
        """Whether the accuracies differ by at most 0.3 points."""
        difference = self.rounded.accuracy.correct - self.trained.accuracy.correct
        return 1000 * abs(difference) <= TOLERATED * self.trained.accuracy.images

    def note(self) -> dict[str, Any]:
        """As the model card reads it."""
        return {
            "ensemble": self.ensemble,
            "float32": self.trained.accuracy.value,
            "float16": self.rounded.accuracy.value,
            "changed": int((self.trained.predictions != self.rounded.predictions).sum()),
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
        "scores": [score(name, data, check.ensemble, check.rounded if half else check.trained) for check in checks],
        "storage": [check.note() for check in checks],
        "scored_with": versions(),
        "license": LICENSE,
    }
    save_pretrained(model, shelf / name, notes, half)
    return checks


def check_rounding(model: nn.Module, data: ImageSet) -> list[Check]:
    """Scores the model, and what comes back of it from float16; a classifier alone draws nothing, so only E = 1."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, half=True)
        rounded, _ = load_pretrained(folder)
    return [
        Check(
            ensemble,
            evaluate(model, data, ensemble=ensemble, seed=SEED, title=f"float32, E = {ensemble}"),
            evaluate(rounded, data, ensemble=ensemble, seed=SEED, title=f"float16, E = {ensemble}"),
        )
        for ensemble in (ENSEMBLES if isinstance(model, Defense) else ENSEMBLES[:1])
    ]


def score(name: str, data: ImageSet, ensemble: int, outcome: Outcome) -> dict[str, Any]:
    """As the model card reads it."""
    shown = {"data": data.name, "fingerprint": data.fingerprint(), "ensemble": ensemble}
    return shown | asdict(Row.of(name, outcome))


def main(
    run: Annotated[Path, typer.Argument(help="Folder that `neuroae train` wrote.")],
    name: Annotated[str, typer.Argument(help="That users will load the model by.")],
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
) -> None:
    """Score a trained model on the CIFAR-10 test images and put it into neuroae/weights/NAME, with its card."""
    checks = ship(run, name, load_dataset("cifar10", "test", data_dir), SHIPPED)
    for check in checks:
        print(
            f"E = {check.ensemble}: {check.trained.accuracy.value:.2%} in float32, "
            f"{check.rounded.accuracy.value:.2%} in float16"
        )
    stored = "float16" if all(check.harmless for check in checks) else "float32: float16 changes the accuracy too much"
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED / name} is written, its weights as {stored}; all that ships: {size / MEGABYTE:.1f} MB")


if __name__ == "__main__":
    run(main)
