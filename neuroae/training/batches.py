"""What is refused before anything is learned or written."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import ImageSet, crop_and_flip
from ..utils import distributed
from ..utils.contexts import autocast, drawing_from
from ..utils.devices import without_waiting
from ..utils.randomness import derive_seed
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
    rank, world = distributed.rank(), distributed.world_size()
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


PROBED = 2


def check_images(name: str, data: ImageSet) -> None:
    if not len(data):
        raise ValueError(f"{name} holds no images, expected at least one")


def check_task(task: nn.Module, data: ImageSet, settings: TrainingSettings) -> None:
    """Shows the task the first images, in evaluation mode; draws of the training are not touched.

    Raises:
        TypeError: a weight is not float32, or its model answers with something else than a tensor.
        ValueError: no weight asks for a gradient, or its logits are not those of the images' classes.
    """
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise ValueError("the model holds no parameter that asks for a gradient, expected one to learn")
    for name, parameter in task.named_parameters():
        if parameter.dtype != torch.float32:
            raise TypeError(f"{name} is {parameter.dtype}, expected torch.float32, in which weights are learned")
    device = next(task.parameters()).device
    images, _, ids, seed, _ = load(data.take(slice(PROBED)), settings, "check", 0, 0, 1.0, device)
    task.eval()
    # Labels that every model knows: those of the images may be beyond its classes.
    labels = torch.zeros_like(ids)
    with (
        torch.no_grad(),
        drawing_from(derive_seed(settings.seed, "check"), device),
        autocast(settings.precision, device),
    ):
        _, logits = task(images, labels, ids, seed)
    if logits is not None and logits.shape[-1] != len(data.classes):
        raise ValueError(
            f"model answers with {logits.shape[-1]} classes, expected the {len(data.classes)} of {data.name}"
        )


def as_json_gives_it_back(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """What of a value comes back from a file: lists for tuples, text for keys.

    Raises:
        TypeError: JSON does not hold it.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds what JSON does not: {error}") from error
    return found
