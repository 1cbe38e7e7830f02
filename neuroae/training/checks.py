"""What is refused before anything is learned or written."""

import json
from typing import Any

import torch
from torch import nn

from ..contexts import autocast, drawing_from
from ..data import ImageSet
from ..randomness import derive_seed
from .batches import load
from .settings import TrainingSettings

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
