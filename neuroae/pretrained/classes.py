"""The names of a saved model's classes, which its notes keep."""

from pathlib import Path
from typing import Any

from ..storage import load_json

CLASSES = "classes"


def class_names(notes: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """The names under "classes", one a logit; None in the notes of earlier versions, which had none.

    Raises:
        ValueError: these are not ``count`` different names.
    """
    names = notes.get(CLASSES)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"notes.{CLASSES} is {names!r}, expected a list of names")
    if len(set(names)) != len(names) or len(names) != count:
        raise ValueError(f"notes.{CLASSES} holds {', '.join(names)}, expected {count} different names")
    return tuple(names)


def load_class_names(path: Path) -> tuple[str, ...] | None:
    """Those of a configuration; see ``class_names``."""
    config = load_json(path)
    try:
        return class_names(config["notes"], config["classifier"]["num_classes"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a model: {error!r}") from error
