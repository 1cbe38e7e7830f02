"""Training: supervised, unsupervised, and the plain classifier; stopped and resumed; in one process or several."""

from .history import Epoch
from .loop import Run
from .methods import train_plain, train_supervised, train_unsupervised
from .settings import TrainingSettings

__all__ = ["Epoch", "Run", "TrainingSettings", "train_plain", "train_supervised", "train_unsupervised"]
