"""The batches of a training, and checks of the images and the task before the first one."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data import ImageSet, crop_and_flip
from ..utils import distributed
from ..utils.contexts import autocast, drawing_from
from ..utils.devices import to_device
from ..utils.randomness import derive_seed
from .settings import TrainingSettings

CHECKED_IMAGES = 2


class Batch(NamedTuple):
    """This process's share of a step.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        ids: (B,) int64.
        seed: The seed of the step's masks. It is the same in every process, since masks depend on the image id too.
        weight: The factor of this process's loss, 1 if all shares are equal. With it, the average of the processes'
            losses is the mean over all images of the step.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    seed: int
    weight: float


def steps_per_epoch(data: ImageSet, settings: TrainingSettings) -> int:
    """Returns the number of steps in a pass over the images."""
    return math.ceil(len(data) / settings.batch_size)


def batches(
    data: ImageSet, settings: TrainingSettings, stage: str, epoch: int, device: torch.device, first_step: int = 0
) -> Iterator[Batch]:
    """Yields the batches of one pass over the images, in an order drawn anew for every epoch.

    Batches depend only on the settings' seed, the epoch, the step and the image ids. The last batch may be smaller.

    Args:
        data: The images.
        settings: Batch size, augmentation and seed.
        stage: The name of what is trained. Two stages with the same seed have different masks.
        epoch: The number of the pass, from 0 on.
        device: The device of the batches.
        first_step: The step to start from.
    """
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, "order", epoch))
    order = torch.randperm(len(data), generator=generator)
    rank, world = distributed.rank(), distributed.world_size()
    for step, indices in enumerate(order.split(settings.batch_size)):
        if step < first_step:
            continue
        share = indices[rank::world]
        weight = len(share) * world / len(indices)
        # Gradients are averaged over all processes, so one without a share takes part with an image of weight 0.
        yield load_batch(data.take(share if len(share) else indices[:1]), settings, stage, epoch, step, weight, device)


def load_batch(
    images: ImageSet,
    settings: TrainingSettings,
    stage: str,
    epoch: int,
    step: int,
    weight: float,
    device: torch.device,
) -> Batch:
    """Returns the images as a batch on the device, augmented if the settings say so."""
    pixels, labels, ids = (to_device(tensor, device) for tensor in (images.images, images.labels, images.ids))
    if settings.augment:
        pixels = crop_and_flip(pixels, settings.seed, epoch, images.ids)
    seed = derive_seed(settings.seed, f"training {stage}", epoch, step)
    return Batch(pixels.float() / images.white, labels, ids, seed, weight)


def check_images(name: str, data: ImageSet) -> None:
    """Refuses an empty set of images.

    Raises:
        ValueError: The set is empty.
    """
    if not len(data):
        raise ValueError(f"{name} holds no images, expected at least one")


def check_task(task: nn.Module, data: ImageSet, settings: TrainingSettings) -> None:
    """Refuses a task that cannot learn, or that has other classes than the images.

    The task computes the loss of the first images, in evaluation mode. This changes no draws of the training.

    Raises:
        TypeError: A parameter is not float32, or the model's output is not a tensor.
        ValueError: No parameter requires a gradient, or the model has another number of classes than the images.
    """
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise ValueError("the model holds no parameter that requires a gradient, expected at least one")
    for name, parameter in task.named_parameters():
        if parameter.dtype != torch.float32:
            raise TypeError(f"{name} is {parameter.dtype}, expected torch.float32, in which weights are learned")
    device = next(task.parameters()).device
    batch = load_batch(data.take(slice(CHECKED_IMAGES)), settings, "check", 0, 0, 1.0, device)
    task.eval()
    # Class 0 exists in every model; the images' labels may exceed its classes.
    labels = torch.zeros_like(batch.labels)
    with (
        torch.no_grad(),
        drawing_from(derive_seed(settings.seed, "check"), device),
        autocast(settings.precision, device),
    ):
        _, logits = task(batch.images, labels, batch.ids, batch.seed)
    if logits is not None and logits.shape[-1] != len(data.classes):
        raise ValueError(
            f"model answers with {logits.shape[-1]} classes, expected the {len(data.classes)} of {data.name}"
        )
