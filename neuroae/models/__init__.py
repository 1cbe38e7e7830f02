"""Models as folders with weights, a readable configuration and a model card. Some ship with the package."""

from .description import class_names
from .folders import CARD, CONFIG, WEIGHTS, load_pretrained, pretrained_classes, save_pretrained, shipped_names

__all__ = [
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "class_names",
    "load_pretrained",
    "pretrained_classes",
    "save_pretrained",
    "shipped_names",
]
