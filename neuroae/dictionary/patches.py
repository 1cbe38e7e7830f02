"""Patches of images, drawn at random."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..data import ImageSet

# Where so many rounds of drawing are not enough, few patches are bright: the sampler then lists them.
ROUNDS = 100
IMAGES_AT_ONCE = 1024


class Patches(NamedTuple):
    """Pieces of images.

    Attributes:
        values: (K, C n n) float64 in [0, 1], the mean not removed.
        image: (K,) int64, the position of the image that each was cut from.
    """

    values: np.ndarray
    image: np.ndarray


class PatchSampler:
    """Draws patches of side ``patch`` uniformly, with replacement, from those that are not black."""

    def __init__(self, data: ImageSet, patch: int) -> None:
        self.data = data
        self.patch = patch
        self.images = data.images.cpu().numpy()
        self.places: np.ndarray | None = None

    def draw(self, count: int, generator: np.random.Generator) -> Patches:
        """``count`` patches.

        Raises:
            ValueError: all patches are black.
        """
        values, numbers = np.empty((0, self.images.shape[1] * self.patch**2)), np.empty(0, np.int64)
        rounds = 0
        while len(values) < count:
            if rounds == ROUNDS and self.places is None:
                self.places = bright_places(self.data, self.patch)
            image, drawn = self.cut(*self.draw_places(count, generator))
            bright = drawn.any(1)
            values, numbers = np.concatenate([values, drawn[bright]]), np.concatenate([numbers, image[bright]])
            rounds += 1
        return Patches(values[:count], numbers[:count])

    def draw_places(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images and upper left corners of ``count`` patches: any, until the bright ones are known."""
        if self.places is not None:
            image, row, column = self.places[generator.integers(len(self.places), size=count)].T
            return image, row, column
        height, width = self.images.shape[2:]
        image = generator.integers(len(self.images), size=count)
        row = generator.integers(height - self.patch + 1, size=count)
        return image, row, generator.integers(width - self.patch + 1, size=count)

    def cut(self, image: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images, and (K, C n n) float64 patches."""
        offsets = np.arange(self.patch)
        rows, columns = row[:, None, None] + offsets[:, None], column[:, None, None] + offsets
        drawn = self.images[image[:, None, None], :, rows, columns].transpose(0, 3, 1, 2)
        return image, drawn.reshape(len(image), -1) / self.data.white


def bright_places(data: ImageSet, patch: int) -> np.ndarray:
    """(K, 3) int64: image, row and column of each patch that is not black, by its upper left corner.

    Raises:
        ValueError: there is none.
    """
    places = []
    for start in range(0, len(data), IMAGES_AT_ONCE):
        bright = data.images[start : start + IMAGES_AT_ONCE].cpu().any(1, keepdim=True).float()
        corners = F.max_pool2d(bright, patch, stride=1)[:, 0].nonzero()
        places.append(corners + torch.tensor([start, 0, 0]))
    every = torch.cat(places).numpy()
    if not len(every):
        raise ValueError(f"{data.name} holds only black patches of side {patch}, expected one that is not")
    return every


def random_patches(data: ImageSet, patch: int, count: int, generator: np.random.Generator) -> Patches:
    """``count`` patches of side ``patch``, drawn uniformly, with replacement, from those that are not black."""
    return PatchSampler(data, patch).draw(count, generator)
