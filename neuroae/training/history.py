"""What a training reports of each epoch."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..utils import distributed


@dataclass(frozen=True)
class Epoch:
    """Means over one pass over the training images, and over the validation images after it.

    Attributes:
        stage: what was trained.
        number: from 1 on.
        learning_rate: at the end.
        loss, accuracy: of the training images while they were learned from; accuracy is None without logits.
        validation_loss, validation_accuracy: None without validation images.
        images_per_second: of this pass; two epochs that differ in nothing else are equal.
    """

    stage: str
    number: int
    learning_rate: float
    loss: float
    accuracy: float | None
    images_per_second: float = field(compare=False)
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass
class Meter:
    """Sums over the images of a pass so far, of all processes; up to date after ``read``."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    classified: int = 0
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        # Where the steps compute, so that a GPU is not waited for in each.
        self._sums: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor | None, labels: Tensor, weight: float) -> None:
        """Adds a step: the mean loss of this process's images, none of which count where the weight is 0."""
        count = len(labels) if weight else 0
        classified = 0 if logits is None else count
        correct = loss.new_zeros(()) if logits is None else (logits.argmax(-1) == labels).sum() * bool(count)
        counted = (loss.new_full((), number, dtype=torch.float64) for number in (count, classified))
        sums = torch.stack([part.double() for part in (loss.detach().double() * count, correct, *counted)])
        step = distributed.total(sums, labels.device)
        if self._sums is None:
            self._sums = step.new_tensor([self.loss, self.correct, self.seen, self.classified])
        self._sums += step

    def read(self) -> None:
        """Brings the numbers up to date, for which a GPU is waited for.

        Raises:
            FloatingPointError: a step's loss was not finite.
        """
        if self._sums is None:
            return
        self.loss, *counts = self._sums.tolist()
        self.correct, self.seen, self.classified = map(int, counts)
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss became {self.loss}; a lower learning rate may help")

    @property
    def mean_loss(self) -> float:
        return self.loss / self.seen

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.classified if self.classified else None

    def shown(self) -> dict[str, str]:
        shown = {"loss": f"{self.mean_loss:.3f}"}
        return shown if self.accuracy is None else shown | {"accuracy": f"{self.accuracy:.1%}"}
