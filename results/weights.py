"""A foreign ResNet-32, from the file of its state."""

import hashlib
from pathlib import Path

from neuroae import resnet32
from neuroae.nn.classifiers import ResNet32
from neuroae.utils.files import load_tensors


def classifier_of(weights: Path) -> ResNet32:
    """In evaluation mode."""
    model = resnet32()
    model.load_state_dict(load_tensors(weights)[0])
    return model.eval()


def described(weights: Path) -> dict[str, str]:
    """The file, as JSON holds it."""
    return {"name": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
