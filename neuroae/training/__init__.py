"""Training (paper, sections 2.3 and 5.1): supervised, unsupervised, and of the classifier alone, plain or adversarial.

A training can be stopped at any moment and resumed, in one process or several.
"""

from .adversarial import train_adversarial
from .history import Epoch
from .loop import Run
from .methods import train_plain, train_supervised, train_unsupervised
from .settings import TrainingSettings

__all__ = [
    "Epoch",
    "Run",
    "TrainingSettings",
    "train_adversarial",
    "train_plain",
    "train_supervised",
    "train_unsupervised",
]
