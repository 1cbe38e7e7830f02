"""The training loop: SGD under a triangular learning rate."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..contexts import autocast
from ..data import ImageSet, crop_and_flip
from ..randomness import derive_seed
from .settings import TrainingSettings


class Batch(NamedTuple):
    """What a step sees: pixels (B, C, H, W) in [0, 1], labels and ids (B,), and the seed of the step's masks."""

    images: Tensor
    labels: Tensor
    ids: Tensor
    seed: int


class Objective(NamedTuple):
    """Mean loss of a batch, and its logits where there are any."""

    loss: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Epoch:
    """Means over one pass; accuracy is None without logits."""

    loss: float
    accuracy: float | None


def fit(
    trained: nn.Module,
    objective: Callable[[Batch], Objective],
    data: ImageSet,
    settings: TrainingSettings,
    description: str,
) -> list[Epoch]:
    """Minimizes the objective over the parameters of ``trained``, which ends in evaluation mode.

    The learning rate rises linearly from 0 in the first half of the steps and falls back to 0 in the second.
    """
    device = next(trained.parameters()).device
    steps = settings.epochs * math.ceil(len(data) / settings.batch_size)
    optimizer = torch.optim.SGD(
        trained.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    rising = max(1, steps // 2)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer,
        base_lr=0.0,
        max_lr=settings.learning_rate,
        step_size_up=rising,
        step_size_down=max(1, steps - rising),
        cycle_momentum=False,
    )
    history = []
    trained.train()
    with tqdm(total=settings.epochs * len(data), desc=description, unit="img") as progress:
        for epoch in range(settings.epochs):
            meter = Meter()
            for batch in batches(data, settings, epoch, device):
                with autocast(settings.precision, device):
                    loss, logits = objective(batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                scheduler.step()
                meter.add(loss, logits, batch.labels)
                progress.set_postfix(meter.shown(epoch, settings.epochs), refresh=False)
                progress.update(len(batch.labels))
            history.append(meter.epoch())
    trained.eval()
    return history


def batches(data: ImageSet, settings: TrainingSettings, epoch: int, device: torch.device) -> Iterator[Batch]:
    """One pass in an order drawn anew for every epoch, the last batch smaller if need be."""
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, "order", epoch))
    order = torch.randperm(len(data), generator=generator)
    for step, indices in enumerate(order.split(settings.batch_size)):
        chosen = data.take(indices)
        images = chosen.pixels()
        if settings.augment:
            images = crop_and_flip(images, settings.seed, epoch, chosen.ids)
        masks = derive_seed(settings.seed, "training", epoch, step)
        yield Batch(images.to(device), chosen.labels.to(device), chosen.ids.to(device), masks)


class Meter:
    """Running means of an epoch."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.correct = 0
        self.seen = 0
        self.classifies = False

    def add(self, loss: Tensor, logits: Tensor | None, labels: Tensor) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value}; a lower learning rate may help")
        self.loss += value * len(labels)
        self.seen += len(labels)
        if logits is not None:
            self.classifies = True
            self.correct += int((logits.argmax(-1) == labels).sum())

    def epoch(self) -> Epoch:
        return Epoch(self.loss / self.seen, self.correct / self.seen if self.classifies else None)

    def shown(self, epoch: int, epochs: int) -> dict[str, str]:
        mean = self.epoch()
        shown = {"epoch": f"{epoch + 1}/{epochs}", "loss": f"{mean.loss:.3f}"}
        return shown if mean.accuracy is None else shown | {"accuracy": f"{mean.accuracy:.1%}"}
