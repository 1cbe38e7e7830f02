"""Attacks: plain functions on any module from images in [0, 1] to logits."""

from .eot import Average, GradientEstimate, eot_gradient
from .pgd import Perturbed, PGDSettings, pgd
from .prediction import mean_probabilities

__all__ = ["Average", "GradientEstimate", "PGDSettings", "Perturbed", "eot_gradient", "mean_probabilities", "pgd"]
