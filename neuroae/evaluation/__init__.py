"""Evaluation: the accuracy of a model, clean and attacked, with its uncertainty."""

from .attack import MODES, Attack, attacks_from
from .plan import Evaluation
from .records import CLEAN, Record
from .results import Results, load_evaluation
from .run import run_evaluation
from .scoring import Scoring
from .statistics import Accuracy
from .suite import evaluate, suite_attack
from .verdict import MergedVerdict, Verdict, merge_evaluations

__all__ = [
    "CLEAN",
    "MODES",
    "Accuracy",
    "Attack",
    "Evaluation",
    "MergedVerdict",
    "Record",
    "Results",
    "Scoring",
    "Verdict",
    "attacks_from",
    "evaluate",
    "load_evaluation",
    "merge_evaluations",
    "run_evaluation",
    "suite_attack",
]
