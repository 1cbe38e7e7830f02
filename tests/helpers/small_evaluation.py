"""An evaluation that takes a fraction of a second, for the tests of evaluations."""

from pathlib import Path

import torch

from models import small_defense
from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet
from neuroae.evaluation import Evaluation, Scoring, attacks_from

BUDGET = PGDSettings(0.1, 0.05, steps=2, realizations=2)


def random_data(count: int) -> ImageSet:
    """Images whose ids are neither positions nor in a row."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet("random test", images, torch.arange(count) % 10, torch.arange(count) * 3 + 5, tuple("abcdefghij"))


def small_evaluation(images: int = 10, block: int = 3, draws: int = 4, seed: int = 3) -> Evaluation:
    """A random defense under its own gradient and another's: 3 attacks, the clean images included, and 4 blocks."""
    torch.manual_seed(1)
    model, other = small_defense(), small_defense()
    attacks = attacks_from(model, BUDGET, ["w-aiga"])
    attacks += attacks_from(other, BUDGET, ["w-nfga-smooth"], transfer="other")
    return Evaluation(model, random_data(images), attacks, Scoring(draws, seed), block, "small")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Times and bytes of all files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
