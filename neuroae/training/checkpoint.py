"""Checkpoints: weights, optimizer, schedule and position of a training in one file.

It is a single file so that all parts are replaced together: a kill leaves either the old state or the new one.
"""

import json
import math
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.files import load_tensors, require_same, save_tensors
from ..utils.validation import check_integer, check_number
from .history import Epoch, Meter
from .settings import TrainingSettings

FORMAT = 2
# Errors that arise from a file whose content has another form.
DAMAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
NOT_THIS_RUN = "{} does not hold the state of this run: {!r}"


@dataclass
class Position:
    """Where a training stands.

    Attributes:
        epoch: The number of the current epoch, from 0 on.
        step: The next step of the epoch, from 0 on.
        history: The completed epochs.
        meter: The sums over the current epoch.
    """

    epoch: int = 0
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class TrainingState:
    """The objects that a step changes.

    Attributes:
        task: The module that is trained.
        optimizer: The optimizer of its parameters.
        scheduler: The schedule of the learning rate.
    """

    task: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler


def through_json(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Returns a value as it comes back from JSON: with lists for tuples, and text for keys.

    Args:
        name: The argument's name, for the error.
        value: The value.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    try:
        result: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds a value that JSON cannot hold: {error}") from error
    return result


def save_checkpoint(path: Path, state: TrainingState, position: Position, identity: dict[str, Any]) -> None:
    """Writes a checkpoint.

    Args:
        path: The file.
        state: The state of the training.
        position: Its position.
        identity: The values by which trainings differ. A run with another identity does not resume from this file.

    Raises:
        OSError: The file cannot be written.
    """
    optimizer = state.optimizer.state_dict()
    weights = state.task.state_dict()
    tensors = {f"task.{name}": tensor for name, tensor in weights.items()}
    for number, momenta in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in momenta.items() if tensor is not None}
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "position": asdict(position),
        "optimizer": optimizer["param_groups"],
        "scheduler": state.scheduler.state_dict(),
        # The metadata that modules store beside their tensors, such as a classifier's mean and std.
        "modules": weights._metadata,  # type: ignore[attr-defined]
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(
    path: Path, state: TrainingState, identity: dict[str, Any], settings: TrainingSettings, images: int
) -> Position:
    """Loads a checkpoint into a state, and returns its position.

    Args:
        path: The file.
        state: The state to load into.
        identity: The identity of this training.
        settings: Its settings, for checking the position.
        images: The number of training images, for checking the position.

    Raises:
        ValueError: The file is damaged, holds a position that this training cannot reach, or belongs to another run;
            the message says what differs.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version: format {metadata.get('format')!r}")
    if not isinstance(metadata.get("identity"), dict):
        raise ValueError(f"{path} does not say which run it belongs to")
    require_same(path, metadata["identity"], identity)
    try:
        position, scheduled = decode_position(metadata["position"]), metadata["scheduler"]["last_epoch"]
    except DAMAGE as error:
        raise ValueError(NOT_THIS_RUN.format(path, error)) from error
    check_position(path, position, settings, images, scheduled)
    try:
        load_state(state, tensors, metadata)
    except DAMAGE as error:
        raise ValueError(NOT_THIS_RUN.format(path, error)) from error
    return position


def decode_position(values: dict[str, Any]) -> Position:
    """Returns the position from the values that ``asdict`` made of it."""
    history = [Epoch(**epoch) for epoch in values["history"]]
    return Position(values["epoch"], values["step"], history, Meter(**values["meter"]))


def check_position(path: Path, position: Position, settings: TrainingSettings, images: int, scheduled: object) -> None:
    """Refuses a position that the training cannot reach: it would repeat epochs, end early, or count images twice.

    Args:
        path: The checkpoint, for the error.
        position: Its position.
        settings: The settings of the training.
        images: The number of training images.
        scheduled: The number of steps that the learning rate's schedule has made.

    Raises:
        ValueError: The training cannot reach the position.
    """
    steps = math.ceil(images / settings.batch_size)
    meter = position.meter
    try:
        check_integer("epoch", position.epoch, 0, settings.epochs)
        check_integer("step", position.step, 0, 0 if position.epoch == settings.epochs else steps)
        numbers = [epoch.number for epoch in position.history]
        check_equal("epochs of the history", numbers, list(range(1, position.epoch + 1)))
        check_equal("meter.seen", meter.seen, min(position.step * settings.batch_size, images))
        check_integer("meter.classified", meter.classified, 0, meter.seen)
        check_integer("meter.correct", meter.correct, 0, meter.classified)
        check_number("meter.loss", meter.loss, lambda _: True, "a finite number")
        check_number("meter.seconds", meter.seconds, lambda seconds: seconds >= 0, "at least 0")
        check_equal("steps of the schedule", scheduled, position.epoch * steps + position.step)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no position of this run: {error}") from error


def check_equal(name: str, value: object, expected: object) -> None:
    """Refuses a value that is not the expected one.

    Raises:
        ValueError: The values differ.
    """
    if value != expected:
        raise ValueError(f"{name} is {value}, expected {expected}")


def load_state(state: TrainingState, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Loads task, optimizer and scheduler from the content of a checkpoint."""
    weights = OrderedDict(strip_prefix("task.", tensors))
    if "modules" in metadata:  # checkpoints of earlier versions have none
        weights._metadata = metadata["modules"]  # type: ignore[attr-defined]
    state.task.load_state_dict(weights)
    momenta: dict[int, dict[str, Tensor]] = {}
    for name, tensor in strip_prefix("optimizer.", tensors).items():
        number, key = name.split(".", 1)
        momenta.setdefault(int(number), {})[key] = tensor
    state.optimizer.load_state_dict({"state": momenta, "param_groups": metadata["optimizer"]})
    restore_strides(state.optimizer)
    state.scheduler.load_state_dict(metadata["scheduler"])


def strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors whose names start with the prefix, by their names without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def restore_strides(optimizer: torch.optim.Optimizer) -> None:
    """Gives momenta the strides of their parameters, which files do not hold. Steps are slower if the two differ."""
    for parameter, momenta in optimizer.state.items():
        for name, tensor in momenta.items():
            if tensor.shape == parameter.shape:
                momenta[name] = torch.empty_like(parameter).copy_(tensor)
