"""Neuro-inspired autoencoding defense: a sparse randomized encoder, its fast engines, and attacks on it."""

from .classifiers import ResNet32, resnet32
from .code import SparseCode, TopT
from .decoder import Decoder
from .defense import Defense
from .encoder import SparseEncoder
from .randomness import derive_seed
from .sparse_conv import SparseConvTranspose2d
from .winograd import WinogradConvTranspose2d

__all__ = [
    "Decoder",
    "Defense",
    "ResNet32",
    "SparseCode",
    "SparseConvTranspose2d",
    "SparseEncoder",
    "TopT",
    "WinogradConvTranspose2d",
    "derive_seed",
    "resnet32",
]
__version__ = "0.1.0"
