"""Accuracies with their uncertainty, from the records of an evaluation. All intervals are at 95%."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.stats import beta, bootstrap
from torch import Tensor

from .records import Record

CONFIDENCE = 0.95
RESAMPLES = 9999
# Resamples of 10,000 images are too many to hold at once.
RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True)
class Accuracy:
    """A number of right answers.

    Attributes:
        correct: Images that are classified correctly.
        images: All images.
    """

    correct: int
    images: int

    @classmethod
    def of(cls, predictions: Tensor, labels: Tensor) -> "Accuracy":
        """Returns the accuracy of (N,) int64 predictions."""
        return cls(int((predictions == labels).sum()), len(labels))

    @property
    def value(self) -> float:
        """The share of right answers, in [0, 1]."""
        return self.correct / self.images

    def interval(self) -> tuple[float, float]:
        """Returns the Clopper-Pearson interval: the images count as a sample, and their verdicts as certain."""
        return clopper_pearson(self.correct, self.images)


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its interval.

    Attributes:
        value: The mean, in [0, 1].
        low: The lower end of the interval.
        high: The upper end of the interval.
    """

    value: float
    low: float
    high: float


def vote_accuracy(records: Sequence[Record]) -> Accuracy:
    """Returns the accuracy of the E scoring draws as one vote (paper, eq. 8)."""
    return Accuracy(sum(record.vote == record.label for record in records), len(records))


def draw_accuracy(records: Sequence[Record]) -> Estimate:
    """Returns the accuracy of one draw, E = 1: the mean over the scoring draws, with a bootstrap over images."""
    return persistent_accuracy(records, 1)


def mean_over_draws(draws: Tensor, labels: Tensor) -> Estimate:
    """Returns ``draw_accuracy`` of (E, N) int64 answers to images with (N,) labels, both on the CPU."""
    return mean_over_images((draws == labels).double().mean(0).numpy())


def persistent_accuracy(records: Sequence[Record], tries: int) -> Estimate:
    """Returns the accuracy against an attacker who asks ``tries`` times and needs one wrong answer.

    An image counts by the share of all sets of ``tries`` scoring draws in which every draw is right. The interval is
    a bootstrap over images.

    Args:
        records: The records of one attack, each with the same number of draws, E.
        tries: How often the attacker asks, 1 to E.

    Raises:
        ValueError: ``tries`` is outside of that, or the records differ in their number of draws.
    """
    draws = {len(record.draws) for record in records}
    if len(draws) != 1:
        raise ValueError(f"records have {sorted(draws)} draws, expected one number")
    (total,) = draws
    if not 1 <= tries <= total:
        raise ValueError(f"tries is {tries}, expected in [1, {total}], the number of draws")
    right = (sum(answer == record.label for answer in record.draws) for record in records)
    return mean_over_images(np.array([comb(count, tries) / comb(total, tries) for count in right]))


def mean_over_images(values: np.ndarray) -> Estimate:
    """Returns the mean of one number per image, (N,) in [0, 1], with a repeatable bootstrap (BCa) over images.

    Where all numbers are 0 or 1, the interval is that of Clopper and Pearson. It also is where all numbers are equal:
    resampling finds no spread in them, and with the same mean, numbers that are 0 or 1 spread most. BCa corrects for
    bias and skewness; without that, intervals miss the mean too often where few images are above 0.
    """
    mean = float(values.mean())
    if np.isin(values, (0, 1)).all() or np.ptp(values) == 0:
        return Estimate(mean, *clopper_pearson(float(values.sum()), len(values)))
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))


def clopper_pearson(correct: float, images: int) -> tuple[float, float]:
    """Returns the ends of the Clopper-Pearson interval; ``correct`` may be a fraction."""
    tail, wrong = (1 - CONFIDENCE) / 2, images - correct
    low = beta.ppf(tail, correct, wrong + 1) if correct else 0.0
    high = beta.ppf(1 - tail, correct + 1, wrong) if wrong else 1.0
    return float(low), float(high)


def worst_case(attacks: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Returns for each image the record of the attack with the largest margin on the selection draws.

    Of equal attacks, the first counts. Scoring draws choose nothing, so accuracies of these records are not biased by
    the choice.

    Args:
        attacks: Records by the attack's name, all of the same images in the same order.

    Raises:
        ValueError: Two attacks have different images.
    """
    images = {name: [record.image for record in records] for name, records in attacks.items()}
    first, *others = images
    for name in others:
        if images[name] != images[first]:
            raise ValueError(f"{name} has other images than {first}, expected the same in the same order")
    return [max(records, key=lambda record: record.selection) for records in zip(*attacks.values(), strict=True)]


def papers_minimum(attacks: Mapping[str, Sequence[Record]]) -> tuple[str, Accuracy]:
    """Returns the attack that leaves the lowest accuracy, and that accuracy; of equal attacks the first.

    This is the paper's rule for transfer attacks (section 5.2). It chooses on the draws that it scores on.
    """
    accuracies = {name: vote_accuracy(records) for name, records in attacks.items()}
    name = min(accuracies, key=lambda each: accuracies[each].value)
    return name, accuracies[name]
