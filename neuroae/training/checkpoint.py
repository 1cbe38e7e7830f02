"""A training run on disk: weights, optimizer, schedule and position in one file.

One file, so that what belongs together is replaced together: a kill leaves the old state or the new one.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..storage import load_tensors, require_same, save_tensors
from .history import Epoch, Meter

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
    tensors = {f"task.{name}": tensor for name, tensor in trained.task.state_dict().items()}
    for number, state in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items() if tensor is not None}
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "position": asdict(position),
        "optimizer": optimizer["param_groups"],
        "scheduler": trained.scheduler.state_dict(),
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(path: Path, trained: Trained, identity: dict[str, Any]) -> Position:
    """Puts the run's state back, and returns its position.

    Raises:
        ValueError: the file is damaged, or belongs to another run; the message says what differs.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version: format {metadata.get('format')!r}")
    if not isinstance(metadata.get("identity"), dict):
        raise ValueError(f"{path} does not say which run it belongs to")
    require_same(path, metadata["identity"], identity)
    try:
        trained.task.load_state_dict(below("task.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below("optimizer.", tensors).items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = tensor
        trained.optimizer.load_state_dict({"state": state, "param_groups": metadata["optimizer"]})
        lay_out(trained.optimizer)
        trained.scheduler.load_state_dict(metadata["scheduler"])
        position = metadata["position"]
        history = [Epoch(**epoch) for epoch in position["history"]]
        return Position(position["epoch"], position["step"], history, Meter(**position["meter"]))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the state of this run: {error!r}") from error


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives momentum the strides of its parameter, which files do not keep; steps are fast where the two agree."""
    for parameter, state in optimizer.state.items():
        for name, tensor in state.items():
            if tensor.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(tensor)


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
