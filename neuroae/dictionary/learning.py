"""Dictionary learning: the atoms of the encoder, from patches of clean images."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ..data import ImageSet
from ..kernels.ops import MAX_ATOMS
from ..utils.progress import progress_bar
from ..utils.randomness import derive_seed
from ..utils.validation import check_integer, check_number
from .measures import near_copies, numerical_rank

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


MOST_COPIES = 0.25  # of the atoms; the paper's settings leave a ninth on CIFAR-10
PATCHES_MEASURED = 1000


def learn_dictionary(
    data: ImageSet,
    *,
    atoms: int = 500,
    patch: int = 4,
    regularization: float = 1.0,
    iterations: int = 1000,
    batch_size: int = 5,
    seed: int = 0,
) -> Tensor:
    """Minimizes eq. 1 by online dictionary learning (Mairal et al., 2009), from random patches of either sign.

    An atom that no patch has used so far starts anew in every iteration, as a patch of that minibatch with a little
    noise. Where iterations are few for the number of atoms, those left at the end are therefore near copies of the
    patches of the last minibatch. Where more than a quarter of the atoms are near copies, a warning says so: lambda is
    on the scale of pixels in [0, 1], and too large for dark images.

    Args:
        data: the training images; patches are raw, in [0, 1], the mean not removed. Black ones teach nothing and
            are passed over.
        atoms: L, 1 to 32,767.
        patch: n, side of a patch.
        regularization: lambda in eq. 1, above 0 and below sqrt(C) n, the largest norm of a patch, from which on
            every code is zero.
        iterations: minibatches.
        batch_size: patches in a minibatch.
        seed: decides which patches are seen.

    Returns:
        (L, C, n, n) float32, each atom of unit l2 norm.
    """
    check_settings(atoms, regularization, iterations, batch_size)
    channels, height, width = data.images.shape[1:]
    check_integer("patch", patch, 1, min(height, width))
    largest = math.sqrt(channels) * patch
    check_number("regularization", regularization, lambda weight: weight < largest, f"below {largest:.4g}, sqrt(C) n")
    if not bool(data.images.any()):
        raise ValueError(f"{data.name} holds only black images")
    generator = np.random.default_rng(derive_seed(seed, "dictionary"))
    sampler = PatchSampler(data, patch)
    start = unit(sampler.draw(atoms, generator).values) * generator.choice((-1.0, 1.0), (atoms, 1))
    learner = MiniBatchDictionaryLearning(
        n_components=atoms,
        alpha=regularization,
        batch_size=batch_size,
        dict_init=start,
        random_state=int(generator.integers(2**31)),
    )
    with warnings.catch_warnings():
        # A path that ends early because nothing is left to explain is no failure of the learning.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in progress_bar(iterable=range(iterations), desc="dictionary", unit="batch"):
            learner.partial_fit(sampler.draw(batch_size, generator).values)
    # scikit-learn keeps norms at 1 or below.
    learned = unit(learner.components_)
    dictionary = torch.from_numpy(learned).float().reshape(atoms, channels, patch, patch)
    warn_of_copies(dictionary, sampler.draw(PATCHES_MEASURED, generator).values, regularization)
    return dictionary


def warn_of_copies(atoms: Tensor, patches: np.ndarray, regularization: float) -> None:
    """Warns where many atoms are near copies, which explain no more than one of them does."""
    copies = near_copies(atoms)
    if copies <= MOST_COPIES * len(atoms):
        return
    norm = float(np.median(np.linalg.norm(patches, axis=1)))
    rank, largest = numerical_rank(atoms), min(len(atoms), atoms[0].numel())
    warnings.warn(
        f"{copies} of {len(atoms)} atoms are near copies of others, and their rank is {rank} of {largest}: with a "
        f"regularization of {regularization:g}, on the scale of pixels in [0, 1], patches whose median l2 norm is "
        f"{norm:.3g} use few atoms. Lower the regularization, or give more iterations, fewer atoms or brighter images",
        stacklevel=3,
    )


def check_settings(atoms: int, regularization: float, iterations: int, batch_size: int) -> None:
    """Refuses what no data could be learned with; the data limit patch and regularization further."""
    check_integer("atoms", atoms, 1, MAX_ATOMS)
    check_number("regularization", regularization, lambda weight: weight > 0, "above 0")
    check_integer("iterations", iterations, 1)
    check_integer("batch_size", batch_size, 1)


def unit(atoms: np.ndarray) -> np.ndarray:
    """Rows divided by their l2 norms."""
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"{int((norms == 0).sum())} of {len(atoms)} atoms are zero, expected none")
    return atoms / norms
