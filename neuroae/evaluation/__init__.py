"""Evaluation: accuracy, clean and attacked, with its uncertainty."""

from .attack import Attack
from .engine import run_evaluation
from .evaluate import Outcome, evaluate
from .evaluation import Evaluation
from .modes import MODES, attacks_from
from .records import CLEAN, Record
from .results import Results, load_evaluation
from .scoring import Scoring
from .statistics import Accuracy

__all__ = [
    "CLEAN",
    "MODES",
    "Accuracy",
    "Attack",
    "Evaluation",
    "Outcome",
    "Record",
    "Results",
    "Scoring",
    "attacks_from",
    "evaluate",
    "load_evaluation",
    "run_evaluation",
]
