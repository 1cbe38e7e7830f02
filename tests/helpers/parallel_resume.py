"""Trainings in several processes, one that is stopped and resumed and one that is not: parallel_resume.py FOLDER.

FOLDER gets the weights of both.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import parallel_run
from models import small_defense
from neuroae import Defense
from neuroae.training import Run, train_supervised
from neuroae.training import loop as training_loop
from neuroae.utils import distributed
from neuroae.utils.files import save_tensors

IMAGES, STEPS = 40, 7


class Stopped(Exception):
    pass


def untrained() -> Defense:
    torch.manual_seed(1)
    model = small_defense()
    model.classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.2), nn.Linear(64, 10))
    return model


def train(folder: Path) -> Defense:
    model, (_, data) = untrained(), parallel_run.untrained(IMAGES)
    train_supervised(model, data, parallel_run.SETTINGS, Run(folder, seconds=0), validation=data)
    return model


def train_until(folder: Path, steps: int) -> None:
    """Stops every process after this many steps, before the next one changes anything."""
    step, steps_done = training_loop.step, []

    def stopping(*arguments: object) -> None:
        if len(steps_done) == steps:
            raise Stopped
        steps_done.append(step(*arguments))  # type: ignore[arg-type]

    training_loop.step = stopping  # type: ignore[assignment]
    try:
        train(folder)
    except Stopped:
        distributed.wait_for_all()
    training_loop.step = step


def main(folder: Path) -> None:
    with distributed.group(torch.device("cpu")):
        uninterrupted = train(folder / "uninterrupted")
        train_until(folder / "stopped", STEPS)
        resumed = train(folder / "stopped")
        if distributed.is_first():
            save_tensors(
                folder / "uninterrupted.safetensors",
                uninterrupted.state_dict(),
                {"processes": distributed.world_size()},
            )
            save_tensors(folder / "stopped.safetensors", resumed.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
