"""Accuracies with their uncertainty, from the records of an evaluation."""

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
    """``correct`` out of ``images``."""

    correct: int
    images: int

    @classmethod
    def of(cls, predictions: Tensor, labels: Tensor) -> "Accuracy":
        return cls(int((predictions == labels).sum()), len(labels))

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.correct / self.images

    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson 95% confidence interval: the images are taken as a sample, the verdicts as given."""
        return clopper_pearson(self.correct, self.images)


@dataclass(frozen=True)
class Estimate:
    """A mean over images, in [0, 1], with the ends of its 95% confidence interval."""

    value: float
    low: float
    high: float


def vote_accuracy(records: Sequence[Record]) -> Accuracy:
    """Of the E draws as one vote (eq. 8)."""
    return Accuracy(sum(record.vote == record.label for record in records), len(records))


def draw_accuracy(records: Sequence[Record]) -> Estimate:
    """Of one draw, E = 1: the mean over the scoring draws, with a bootstrap over images."""
    return persistent_accuracy(records, 1)


def mean_over_draws(draws: Tensor, labels: Tensor) -> Estimate:
    """As ``draw_accuracy``, from (E, N) answers to images of (N,) labels, both on the CPU."""
    return mean_over_images((draws == labels).double().mean(0).numpy())


def persistent_accuracy(records: Sequence[Record], tries: int) -> Estimate:
    """Against an attacker who asks ``tries`` times and needs one wrong answer, with a bootstrap over images.

    Each image counts by the share of the sets of ``tries`` scoring draws in which all answer rightly.

    Args:
        records: of one attack, each with the same number of draws.
        tries: k, in 1 .. E.
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
    """The mean of one number an image, in [0, 1], with a bootstrap (BCa) that the same numbers repeat.

    Where all are 0 or 1, the interval is Clopper and Pearson's, and so it is where all are equal: resampling these
    finds no spread, and no numbers of their mean spread more than those that are 0 or 1. Percentiles of resampled
    means, without the correction for bias and skewness, miss the mean of few images above 0 too often.
    """
    mean = float(values.mean())
    if np.isin(values, (0, 1)).all() or np.ptp(values) == 0:
        return Estimate(mean, *clopper_pearson(float(values.sum()), len(values)))
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))


def clopper_pearson(correct: float, images: int) -> tuple[float, float]:
    """The ends of the interval, for shares of images as well as for whole ones."""
    tail, wrong = (1 - CONFIDENCE) / 2, images - correct
    low = beta.ppf(tail, correct, wrong + 1) if correct else 0.0
    high = beta.ppf(1 - tail, correct + 1, wrong) if wrong else 1.0
    return float(low), float(high)


def worst_case(attacks: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Of each image the record of the attack that does most harm to it on the selection draws; of equals the first.

    Its scoring draws chose nothing, so accuracies of these records are not biased by the choice.

    Args:
        attacks: records by the attack's name, all of the same images in the same order.
    """
    images = {name: [record.image for record in records] for name, records in attacks.items()}
    first, *others = images
    for name in others:
        if images[name] != images[first]:
            raise ValueError(f"{name} has other images than {first}, expected the same in the same order")
    return [max(records, key=lambda record: record.selection) for records in zip(*attacks.values(), strict=True)]


def papers_minimum(attacks: Mapping[str, Sequence[Record]]) -> tuple[str, Accuracy]:
    """The attack that leaves the lowest accuracy, and that accuracy; of equals the first.

    It is the paper's rule for transfer attacks (section 5.2). The attack is chosen on the draws that it is scored on.
    """
    found = {name: vote_accuracy(records) for name, records in attacks.items()}
    name = min(found, key=lambda each: found[each].value)
    return name, found[name]
