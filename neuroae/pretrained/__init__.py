"""Models as folders: weights, a readable configuration and a model card. Some ship with the package."""

from .folders import CONFIG, load_pretrained, save_pretrained, shipped_names

__all__ = ["CONFIG", "load_pretrained", "save_pretrained", "shipped_names"]
