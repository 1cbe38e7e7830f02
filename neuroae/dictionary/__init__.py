"""Dictionaries (paper, section 2.1): learned from patches of clean images, saved in files, and measured."""

from .files import dictionary_digest, load_dictionary, save_dictionary
from .learning import Patches, check_settings, learn_dictionary, random_patches

__all__ = [
    "Patches",
    "check_settings",
    "dictionary_digest",
    "learn_dictionary",
    "load_dictionary",
    "random_patches",
    "save_dictionary",
]
