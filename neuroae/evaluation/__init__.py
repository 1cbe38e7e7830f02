"""Evaluation: accuracy, clean and attacked, with its uncertainty."""

from .attack import MODES, Attack, attacks_from
from .plan import Evaluation
from .records import CLEAN, Record
from .results import Results, load_evaluation
from .run import Outcome, evaluate, run_evaluation
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
