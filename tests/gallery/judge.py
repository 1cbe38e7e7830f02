"""Judges the defenses of the gallery: what the suite leaves of the images that fall without the defense."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import neuroae
from gallery.defenses import Broken
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import Verdict

EPSILONS = {"cifar10": 8 / 255, "digits": 0.2}


@dataclass(frozen=True)
class Judged:
    """
    Attributes:
        clean: Share of all images that the defense classifies correctly.
        falling: Images that a plain attack breaks without the defense.
        left: Of these, the images that the suite leaves.
        stage: The stage that took most.
        seconds: How long the suite took.
    """

    clean: float
    falling: int
    left: int
    stage: str
    seconds: float

    @property
    def share(self) -> float:
        """The share that the suite leaves of the images that fall without the defense, in percent."""
        return 100 * self.left / max(self.falling, 1)


def first_images(dataset: str, count: int, data_dir: Path | None) -> ImageSet:
    return load_dataset(dataset, "test", data_dir if dataset == "cifar10" else None).limited(count)


def judge(broken: Broken, data: ImageSet, suite: str, block: int = 64) -> Judged:
    """Runs the suite on a defense, and the quick suite on the model without it."""
    epsilon = EPSILONS[broken.dataset]

    def run(model: nn.Module, suite: str) -> Verdict:
        return neuroae.evaluate(model, data, epsilon=epsilon, suite=suite, block=block)

    plain, verdict = run(broken.plain(), "quick"), run(broken.build(), suite)
    falling = {image for image, right in right_answers(plain).items() if not right}
    right = right_answers(verdict)
    results = verdict.results
    seconds = results.seconds[verdict.attack]
    left = sum(right[image] for image in falling)
    return Judged(verdict.clean.value, len(falling), left, verdict.decisive, seconds)


def right_answers(verdict: Verdict) -> Mapping[int, bool]:
    """Which images the vote of the scoring draws classifies correctly under the suite, by id."""
    return {record.image: record.vote == record.label for record in verdict.results.records[verdict.attack]}
