"""Training: supervised, unsupervised, and the plain classifier."""

from .loop import Epoch
from .methods import train_plain, train_supervised, train_unsupervised
from .settings import TrainingSettings

__all__ = ["Epoch", "TrainingSettings", "train_plain", "train_supervised", "train_unsupervised"]
