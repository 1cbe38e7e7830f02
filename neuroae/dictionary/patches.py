"""Patches of images, drawn at random."""

from typing import NamedTuple

import numpy as np

from ..data import ImageSet


class Patches(NamedTuple):
    """Pieces of images.

    Attributes:
        values: (K, C n n) float64 in [0, 1], the mean not removed.
        image: (K,) int64, the position of the image that each was cut from.
    """

    values: np.ndarray
    image: np.ndarray


def random_patches(data: ImageSet, patch: int, count: int, generator: np.random.Generator) -> Patches:
    """``count`` patches of side ``patch``, drawn uniformly, with replacement, from those that are not black."""
    channels, height, width = data.images.shape[1:]
    images = data.images.cpu().numpy()
    offsets = np.arange(patch)
    values, numbers = np.empty((0, channels * patch * patch)), np.empty(0, np.int64)
    while len(values) < count:
        image = generator.integers(len(images), size=count)
        rows = generator.integers(height - patch + 1, size=count)[:, None, None] + offsets[:, None]
        columns = generator.integers(width - patch + 1, size=count)[:, None, None] + offsets
        drawn = images[image[:, None, None], :, rows, columns].transpose(0, 3, 1, 2).reshape(count, -1) / data.white
        bright = drawn.any(1)
        values, numbers = np.concatenate([values, drawn[bright]]), np.concatenate([numbers, image[bright]])
    return Patches(values[:count], numbers[:count])
