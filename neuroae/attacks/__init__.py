"""Attacks as functions on any module from images in [0, 1] to logits.

``neuroae.attacks.protocol`` says what a model may offer to make them faster.
"""

from .apgd import apgd
from .balls import round_to_8_bits
from .bpda import bpda
from .eot import Average, GradientEstimate, eot_gradient
from .evolution import evolution
from .losses import LossName, drawn_probabilities, mean_margin, mean_probabilities
from .pgd import pgd
from .probe import Probe, probe
from .restarts import Perturbed
from .settings import APGDSettings, EvolutionSettings, PGDSettings, SquareSettings
from .square import square
from .stages import suite_stages
from .straight_through import StraightThrough
from .suite import run_suite
from .taps import InputTap, LogitsTap

__all__ = [
    "APGDSettings",
    "Average",
    "EvolutionSettings",
    "GradientEstimate",
    "InputTap",
    "LogitsTap",
    "LossName",
    "PGDSettings",
    "Perturbed",
    "Probe",
    "SquareSettings",
    "StraightThrough",
    "apgd",
    "bpda",
    "drawn_probabilities",
    "eot_gradient",
    "evolution",
    "mean_margin",
    "mean_probabilities",
    "pgd",
    "probe",
    "round_to_8_bits",
    "run_suite",
    "square",
    "suite_stages",
]
