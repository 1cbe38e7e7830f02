"""Attacks as functions on any module from images in [0, 1] to logits.

``neuroae.attacks.protocol`` says what a model may offer to make them faster.
"""

from .apgd import apgd
from .balls import round_to_8_bits
from .eot import Average, GradientEstimate, eot_gradient
from .losses import LossName, drawn_probabilities, mean_margin, mean_probabilities
from .pgd import pgd
from .restarts import Perturbed
from .settings import APGDSettings, PGDSettings, SquareSettings
from .square import square

__all__ = [
    "APGDSettings",
    "Average",
    "GradientEstimate",
    "LossName",
    "PGDSettings",
    "Perturbed",
    "SquareSettings",
    "apgd",
    "drawn_probabilities",
    "eot_gradient",
    "mean_margin",
    "mean_probabilities",
    "pgd",
    "round_to_8_bits",
    "square",
]
