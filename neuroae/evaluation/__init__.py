"""Evaluation: accuracy, clean and attacked, with its uncertainty."""

from .evaluate import Attack, Outcome, evaluate
from .modes import MODES, attacks_from
from .statistics import Accuracy

__all__ = ["MODES", "Accuracy", "Attack", "Outcome", "attacks_from", "evaluate"]
