"""Judges adversarial defenses that are random or hide their gradients, and implements a neuro-inspired one, fast."""

from typing import Any

from .nn.classifiers import DropoutResNet32, ResNet32, resnet32
from .nn.code import SparseCode, TopT
from .nn.convolutions import SparseConvTranspose2d, WinogradConvTranspose2d
from .nn.decoder import Decoder
from .nn.defense import Defense
from .nn.efficientnet import EfficientNetB0
from .nn.encoder import SparseEncoder
from .nn.front_ends import FrontEndClassifier, GaussianBlur, KSparseAutoencoder
from .utils import renamed
from .utils.randomness import derive_seed
from .utils.versions import __version__

__all__ = [
    "Decoder",
    "Defense",
    "DropoutResNet32",
    "EfficientNetB0",
    "FrontEndClassifier",
    "GaussianBlur",
    "KSparseAutoencoder",
    "ResNet32",
    "SparseCode",
    "SparseConvTranspose2d",
    "SparseEncoder",
    "TopT",
    "WinogradConvTranspose2d",
    "__version__",
    "derive_seed",
    "evaluate",
    "resnet32",
]

renamed.install()


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: evaluations need libraries that the layers do without.
    if name == "evaluate":
        from .evaluation import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
