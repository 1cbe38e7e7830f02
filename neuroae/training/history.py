"""What a training reports of each epoch."""

import math
from dataclasses import dataclass, field

import torch

from .. import processes


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
    """Sums over the images of a pass so far, of all processes."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    classified: int = 0
    seconds: float = field(default=0.0, compare=False)

    def add(self, loss: torch.Tensor, logits: torch.Tensor | None, labels: torch.Tensor, weight: float) -> None:
        """Adds a step: the mean loss of this process's images, none of which count where the weight is 0."""
        count = len(labels) if weight else 0
        correct = int((logits.argmax(-1) == labels).sum()) if logits is not None and count else 0
        classified = count if logits is not None else 0
        sums = torch.tensor([float(loss.detach()) * count, correct, count, classified], dtype=torch.float64)
        step = processes.total(sums, labels.device).tolist()
        if not math.isfinite(step[0]):
            raise FloatingPointError(f"the loss became {step[0] / step[2]}; a lower learning rate may help")
        self.loss += step[0]
        self.correct += int(step[1])
        self.seen += int(step[2])
        self.classified += int(step[3])

    @property
    def mean_loss(self) -> float:
        return self.loss / self.seen

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.classified if self.classified else None

    def shown(self) -> dict[str, str]:
        shown = {"loss": f"{self.mean_loss:.3f}"}
        return shown if self.accuracy is None else shown | {"accuracy": f"{self.accuracy:.1%}"}
