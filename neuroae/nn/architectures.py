"""The classifiers that configurations name."""

from typing import Any

from torch import nn

from .classifiers import DropoutResNet32, ResNet32
from .efficientnet import EfficientNetB0
from .normalization import NormalizingClassifier

CLASSIFIERS: dict[str, type[NormalizingClassifier]] = {
    kind.NAME: kind for kind in (ResNet32, EfficientNetB0, DropoutResNet32)
}
# How texts name them.
TITLES = {
    "resnet32": "ResNet-32",
    "efficientnet-b0": "EfficientNet-B0",
    "dropout-resnet32": "ResNet-32 with dropout in its first layer",
}


def classifier_from_config(config: dict[str, Any]) -> NormalizingClassifier:
    """Returns an untrained classifier with the settings that its ``config`` returned.

    Raises:
        ValueError: The name is unknown.
    """
    name = config["name"]
    if name not in CLASSIFIERS:
        raise ValueError(f"classifier is {name!r}, expected one of {', '.join(map(repr, CLASSIFIERS))}")
    return CLASSIFIERS[name].from_config(config)


def is_deterministic(classifier: nn.Module) -> bool:
    """Returns whether a classifier is one of ours that draws nothing in evaluation mode. Subclasses may draw."""
    return type(classifier) in CLASSIFIERS.values() and type(classifier) is not DropoutResNet32
