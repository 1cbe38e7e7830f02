"""A training run on disk: weights, optimizer, schedule and position in one file.

One file, so that what belongs together is replaced together: a kill leaves the old state or the new one.
"""

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

# What a file of another form raises where its parts are taken out.
DAMAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
NOT_THIS_RUN = "{} does not hold the state of this run: {!r}"
FORMAT = 2


@dataclass
class Position:
    """Where a run stands: the step that comes next, what the epochs before it gave, and this one so far."""

    epoch: int = 0
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class Trained:
    """All that a step changes."""

    task: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler


def save_checkpoint(path: Path, trained: Trained, position: Position, identity: dict[str, Any]) -> None:
    """Writes the run's state; ``identity`` says what the run is, and a file with another is not continued."""
    optimizer = trained.optimizer.state_dict()
    weights = trained.task.state_dict()
    tensors = {f"task.{name}": tensor for name, tensor in weights.items()}
    for number, state in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items() if tensor is not None}
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "position": asdict(position),
        "optimizer": optimizer["param_groups"],
        "scheduler": trained.scheduler.state_dict(),
        # What modules keep of themselves beside their tensors, as a classifier its mean and std.
        "modules": weights._metadata,  # type: ignore[attr-defined]
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(
    path: Path, trained: Trained, identity: dict[str, Any], settings: TrainingSettings, images: int
) -> Position:
    """Puts the run's state back, and returns its position.

    Args:
        path: of the file.
        trained: that the state is put into.
        identity: of the run.
        settings: of the run, whose epochs and steps the position has to be among.
        images: a pass of the run goes over so many.

    Raises:
        ValueError: the file is damaged, holds a position that no run of these settings comes to, or belongs to
            another run; the message says what differs.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version: format {metadata.get('format')!r}")
    if not isinstance(metadata.get("identity"), dict):
        raise ValueError(f"{path} does not say which run it belongs to")
    require_same(path, metadata["identity"], identity)
    try:
        position, scheduled = position_of(metadata["position"]), metadata["scheduler"]["last_epoch"]
    except DAMAGE as error:
        raise ValueError(NOT_THIS_RUN.format(path, error)) from error
    require_position(path, position, settings, images, scheduled)
    try:
        weights = OrderedDict(below("task.", tensors))
        if "modules" in metadata:  # checkpoints of earlier versions have none
            weights._metadata = metadata["modules"]  # type: ignore[attr-defined]
        trained.task.load_state_dict(weights)
        momenta: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below("optimizer.", tensors).items():
            number, key = name.split(".", 1)
            momenta.setdefault(int(number), {})[key] = tensor
        trained.optimizer.load_state_dict({"state": momenta, "param_groups": metadata["optimizer"]})
        lay_out(trained.optimizer)
        trained.scheduler.load_state_dict(metadata["scheduler"])
    except DAMAGE as error:
        raise ValueError(NOT_THIS_RUN.format(path, error)) from error
    return position


def position_of(kept: dict[str, Any]) -> Position:
    history = [Epoch(**epoch) for epoch in kept["history"]]
    return Position(kept["epoch"], kept["step"], history, Meter(**kept["meter"]))


def require_position(
    path: Path, position: Position, settings: TrainingSettings, images: int, scheduled: object
) -> None:
    """Refuses a position that training does not come to: it would begin again, end early, or count passes twice.

    Args:
        path: of the checkpoint, named in the error.
        position: that it holds.
        settings: of the run.
        images: of a pass.
        scheduled: steps that the schedule of the learning rate has made.
    """
    steps = math.ceil(images / settings.batch_size)
    meter = position.meter
    try:
        check_integer("epoch", position.epoch, 0, settings.epochs)
        check_integer("step", position.step, 0, 0 if position.epoch == settings.epochs else steps)
        numbers = [epoch.number for epoch in position.history]
        require_equal("epochs of the history", numbers, list(range(1, position.epoch + 1)))
        require_equal("meter.seen", meter.seen, min(position.step * settings.batch_size, images))
        check_integer("meter.classified", meter.classified, 0, meter.seen)
        check_integer("meter.correct", meter.correct, 0, meter.classified)
        check_number("meter.loss", meter.loss, lambda _: True, "a finite number")
        check_number("meter.seconds", meter.seconds, lambda seconds: seconds >= 0, "at least 0")
        require_equal("steps of the schedule", scheduled, position.epoch * steps + position.step)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no position of this run: {error}") from error


def require_equal(name: str, value: object, expected: object) -> None:
    if value != expected:
        raise ValueError(f"{name} is {value}, expected {expected}")


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives momentum the strides of its parameter, which files do not keep; steps are fast where the two agree."""
    for parameter, state in optimizer.state.items():
        for name, tensor in state.items():
            if tensor.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(tensor)


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
