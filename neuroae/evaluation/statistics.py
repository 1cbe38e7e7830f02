"""Accuracy with its uncertainty."""

from dataclasses import dataclass

from scipy.stats import binomtest
from torch import Tensor

CONFIDENCE = 0.95


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
        found = binomtest(self.correct, self.images).proportion_ci(CONFIDENCE, "exact")
        return float(found.low), float(found.high)
