"""Small models for the tests of training, attacks and evaluation."""

import torch
from torch import Tensor, nn

from dictionaries import unit_atoms
from neuroae import Defense, SparseEncoder


class Linear(nn.Module):
    """Classifies images by one matrix, so that the best attack has a closed form."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class SmallDecoder(nn.Module):
    """A decoder with one dense layer."""

    def __init__(self, atoms: int, channels: int, patch: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(atoms, channels, patch, stride)

    def forward(self, code: object) -> Tensor:
        return self.layer(code.to_dense()).sigmoid()  # type: ignore[attr-defined]


def small_defense(size: int = 8, channels: int = 1, classes: int = 10, **settings: object) -> Defense:
    """Returns a defense of 20 atoms of 4 x 4 that drops half of 8 coefficients, in evaluation mode."""
    arguments = {"stride": 2, "top_t": 8, "dropout_p": 0.5, "epsilon": 0.02} | settings
    encoder = SparseEncoder(unit_atoms(20, channels, 4), **arguments)  # type: ignore[arg-type]
    return Defense(encoder, SmallDecoder(20, channels, 4, 2), Linear(channels, size, classes)).eval()


def random_images(count: int = 6, channels: int = 1, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Returns images in [0, 1], labels of 10 classes, and ids that differ from the positions in the batch."""
    return torch.rand(count, channels, size, size), torch.arange(count) % 10, torch.arange(count) * 7 + 3
