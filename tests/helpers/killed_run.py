"""A training that is killed, run as a process: killed_run.py FOLDER [SECONDS].

FOLDER holds its checkpoints and its weights. SIGALRM kills the process SECONDS after its first checkpoint. As with
SIGKILL, no handler and no clean-up runs, and no other process can delay the timer.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroae.data import ImageSet
from neuroae.training import Run, TrainingSettings, loop, train_plain
from neuroae.utils.files import save_tensors

SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=0.05, augment=True, seed=3)


class NoisyClassifier(nn.Module):
    """A classifier that draws from torch's generator while it trains, and has running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def untrained() -> NoisyClassifier:
    torch.manual_seed(1)
    return NoisyClassifier()


def random_data(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    classes = tuple(str(number) for number in range(10))
    return ImageSet("random", images, torch.arange(count) % 10, torch.arange(count), classes)


def schedule_kill(seconds: float) -> None:
    """Kills the process this long after its first checkpoint, so that every run makes at least a step."""
    save = loop.save_checkpoint

    def save_first(*arguments: Any) -> None:
        save(*arguments)
        loop.save_checkpoint = save
        signal.setitimer(signal.ITIMER_REAL, seconds)

    loop.save_checkpoint = save_first


def main(folder: Path, seconds: float = 0) -> None:
    torch.set_num_threads(1)
    model = untrained()
    torch.manual_seed(7)
    if seconds:
        schedule_kill(seconds)
    train_plain(model, random_data(2000), SETTINGS, Run(folder, seconds=0))
    save_tensors(folder / "weights.safetensors", model.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
