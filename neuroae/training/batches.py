"""What a training step sees: images in an order of the epoch's own, augmented, and shared out over processes."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .. import processes
from ..data import ImageSet, crop_and_flip
from ..devices import without_waiting
from ..randomness import derive_seed
from .settings import TrainingSettings


class Batch(NamedTuple):
    """This process's share of a step.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        ids: (B,) int64.
        seed: of the step's masks, the same in every process: masks follow the image id.
        weight: that makes the mean of all processes' losses that of the step's images; 1 where shares are equal.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    seed: int
    weight: float


def steps_per_epoch(data: ImageSet, settings: TrainingSettings) -> int:
    return math.ceil(len(data) / settings.batch_size)


def batches(
    data: ImageSet, settings: TrainingSettings, stage: str, epoch: int, device: torch.device, first_step: int = 0
) -> Iterator[Batch]:
    """One pass from a step on, in an order drawn anew for every epoch; the last batch is smaller if need be.

    Everything follows from the settings' seed, the epoch, the step and the ids; the stage keeps masks of two
    trainings with one seed apart.
    """
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, "order", epoch))
    order = torch.randperm(len(data), generator=generator)
    rank, world = processes.rank(), processes.world_size()
    for step, indices in enumerate(order.split(settings.batch_size)):
        if step < first_step:
            continue
        mine = indices[rank::world]
        weight = len(mine) * world / len(indices)
        # A process without images takes part with one of no weight: gradients are averaged over all of them.
        yield load(data.take(mine if len(mine) else indices[:1]), settings, stage, epoch, step, weight, device)


def load(
    chosen: ImageSet,
    settings: TrainingSettings,
    stage: str,
    epoch: int,
    step: int,
    weight: float,
    device: torch.device,
) -> Batch:
    images, labels, ids = (without_waiting(tensor, device) for tensor in (chosen.images, chosen.labels, chosen.ids))
    if settings.augment:
        images = crop_and_flip(images, settings.seed, epoch, chosen.ids)
    masks = derive_seed(settings.seed, f"training {stage}", epoch, step)
    return Batch(images.float() / chosen.white, labels, ids, masks, weight)
