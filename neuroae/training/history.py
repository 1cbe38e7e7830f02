"""The record of each epoch of a training, and the sums over the current epoch from which it is computed."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..utils import distributed


@dataclass(frozen=True)
class Epoch:
    """Means over one pass over the training images, and over the validation images after it.

    Epochs that differ only in their speed are equal.

    Attributes:
        stage: The name of what was trained, such as "defense".
        number: The epoch's number, from 1 on.
        learning_rate: The learning rate at the end of the epoch.
        loss: The mean loss of the training images, while they were learned from.
        accuracy: Their accuracy, in [0, 1]; None if the task has no logits.
        images_per_second: The speed of the pass.
        validation_loss: The mean loss of the validation images; None without such images.
        validation_accuracy: Their accuracy, in [0, 1]; None without such images, or if the task has no logits.
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
    """Sums over the images of the current pass, in all processes; up to date after ``read``.

    Attributes:
        loss: The sum of the images' losses.
        correct: The number of images that are classified correctly.
        seen: The number of images.
        classified: The number of images with logits.
        seconds: The time that the pass has taken.
    """

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    classified: int = 0
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        # The sums stay on the device that computes the steps, so that no step waits for a GPU.
        self._sums: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor | None, labels: Tensor, weight: float) -> None:
        """Adds a step.

        Args:
            loss: The mean loss of this process's images.
            logits: (B, classes), or None if the task has none.
            labels: (B,) int64.
            weight: The weight of this process's batch. Images of a batch with weight 0 do not count.
        """
        count = len(labels) if weight else 0
        classified = 0 if logits is None else count
        correct = loss.new_zeros(()) if logits is None else (logits.argmax(-1) == labels).sum() * bool(count)
        counts = (loss.new_full((), number, dtype=torch.float64) for number in (count, classified))
        sums = torch.stack([part.double() for part in (loss.detach().double() * count, correct, *counts)])
        step = distributed.total(sums, labels.device)
        if self._sums is None:
            self._sums = step.new_tensor([self.loss, self.correct, self.seen, self.classified])
        self._sums += step

    def read(self) -> None:
        """Updates the attributes from the device, which waits for a GPU.

        Raises:
            FloatingPointError: The loss of a step was not finite.
        """
        if self._sums is None:
            return
        self.loss, *counts = self._sums.tolist()
        self.correct, self.seen, self.classified = map(int, counts)
        if not math.isfinite(self.loss):
            raise FloatingPointError(f"the loss became {self.loss}; a lower learning rate may help")

    @property
    def mean_loss(self) -> float:
        """The mean loss of the images so far."""
        return self.loss / self.seen

    @property
    def accuracy(self) -> float | None:
        """The accuracy so far, in [0, 1]; None if the task has no logits."""
        return self.correct / self.classified if self.classified else None

    def summary(self) -> dict[str, str]:
        """Returns loss and accuracy as text, for a progress bar."""
        texts = {"loss": f"{self.mean_loss:.3f}"}
        return texts if self.accuracy is None else texts | {"accuracy": f"{self.accuracy:.1%}"}
