"""The settings of a training (paper, section 5.1)."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..utils.contexts import PRECISIONS
from ..utils.validation import check_boolean, check_integer, check_number

Schedule = Literal["triangular", "constant", "stepwise"]
SCHEDULES = get_args(Schedule)
# Where the published training by TRADES lowers its rate: after 50 of 76 epochs.
DECAY = 50 / 76


@dataclass(frozen=True)
class TrainingSettings:
    """Optimizer, schedule and seed; the defaults are the paper's.

    Attributes:
        epochs: The number of passes over the training images.
        batch_size: The number of images in a step, in all processes together.
        learning_rate: The learning rate at its peak, in the middle of the training.
        schedule: "triangular", linear from 0 to the peak over the first half of the steps and back to 0 over the
            second; "constant"; or "stepwise", at the peak, and from ``DECAY`` of the steps on at a tenth of it.
        momentum: The momentum of SGD.
        weight_decay: The weight decay of SGD.
        precision: "float32", or "bfloat16" for decoder and classifier.
        augment: Whether images are cropped at random after padding by 4 pixels, and mirrored half of the time.
        seed: The seed of the images' order, their augmentation and the encoder's masks.

    Raises:
        TypeError: A setting has another type. numpy's numbers are refused too, since checkpoints cannot hold them.
        ValueError: A setting is out of range, or NaN.
    """

    epochs: int = 70
    batch_size: int = 64
    learning_rate: float = 0.05
    schedule: Schedule = "triangular"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "float32"
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed, -math.inf)
        check_boolean("augment", self.augment)
        for name in ("learning_rate", "momentum", "weight_decay"):
            check_number(name, getattr(self, name), lambda rate: rate >= 0, "at least 0")
        for name, choices in {"precision": PRECISIONS, "schedule": SCHEDULES}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")
