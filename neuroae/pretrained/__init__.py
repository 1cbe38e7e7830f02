"""Models as folders: weights, a readable configuration and a model card. Some ship with the package."""

from .folders import CARD, CONFIG, WEIGHTS, load_pretrained, save_pretrained, shipped_names

__all__ = ["CARD", "CONFIG", "WEIGHTS", "load_pretrained", "save_pretrained", "shipped_names"]
