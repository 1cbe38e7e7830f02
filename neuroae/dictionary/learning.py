"""Dictionary learning (paper, section 2.1): random patches of clean images, and atoms learned from them."""

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

# If this many rounds do not draw enough patches that are not black, the sampler lists all such patches, and draws from
# the list.
MAX_ROUNDS = 100
IMAGES_AT_ONCE = 1024
# A larger share of near copies among the atoms gives a warning. On CIFAR-10, the paper's settings leave a ninth.
MAX_COPIES = 0.25
# The number of patches whose median norm the warning shows.
MEASURED_PATCHES = 1000


class Patches(NamedTuple):
    """Patches of images.

    Attributes:
        values: (K, C n n) float64 in [0, 1], with their mean.
        image: (K,) int64, the position of the image that each patch was cut from.
    """

    values: np.ndarray
    image: np.ndarray


def random_patches(data: ImageSet, patch: int, count: int, generator: np.random.Generator) -> Patches:
    """Draws patches uniformly, with replacement, from all patches that are not black.

    Args:
        data: The images.
        patch: n, the side of a patch.
        count: K, the number of patches.
        generator: The source of random numbers.

    Raises:
        ValueError: All patches are black.
    """
    return PatchSampler(data, patch).draw(count, generator)


class PatchSampler:
    """Draws patches that are not black. If few are, it lists them once and then draws from the list.

    Args:
        data: The images.
        patch: n, the side of a patch.
    """

    def __init__(self, data: ImageSet, patch: int) -> None:
        self.data = data
        self.patch = patch
        self.images = data.images.cpu().numpy()
        self.bright_corners: np.ndarray | None = None

    def draw(self, count: int, generator: np.random.Generator) -> Patches:
        """Returns ``count`` patches; see ``random_patches``."""
        values, images = np.empty((0, self.images.shape[1] * self.patch**2)), np.empty(0, np.int64)
        rounds = 0
        while len(values) < count:
            if rounds == MAX_ROUNDS and self.bright_corners is None:
                self.bright_corners = bright_corners(self.data, self.patch)
            image, row, column = self.draw_corners(count, generator)
            patches = self.cut(image, row, column)
            bright = patches.any(1)
            values, images = np.concatenate([values, patches[bright]]), np.concatenate([images, image[bright]])
            rounds += 1
        return Patches(values[:count], images[:count])

    def draw_corners(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns image, row and column of the upper left corners of ``count`` random patches, each (count,).

        Black patches are among them, unless the bright ones have been listed.
        """
        if self.bright_corners is not None:
            image, row, column = self.bright_corners[generator.integers(len(self.bright_corners), size=count)].T
            return image, row, column
        height, width = self.images.shape[2:]
        image = generator.integers(len(self.images), size=count)
        row = generator.integers(height - self.patch + 1, size=count)
        return image, row, generator.integers(width - self.patch + 1, size=count)

    def cut(self, image: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Returns the patches with these upper left corners, (K, C n n) float64 in [0, 1]."""
        offsets = np.arange(self.patch)
        rows, columns = row[:, None, None] + offsets[:, None], column[:, None, None] + offsets
        patches = self.images[image[:, None, None], :, rows, columns].transpose(0, 3, 1, 2)
        return patches.reshape(len(image), -1) / self.data.white


def bright_corners(data: ImageSet, patch: int) -> np.ndarray:
    """Returns image, row and column of the upper left corner of each patch that is not black, (K, 3) int64.

    Raises:
        ValueError: All patches are black.
    """
    parts = []
    for start in range(0, len(data), IMAGES_AT_ONCE):
        bright = data.images[start : start + IMAGES_AT_ONCE].cpu().any(1, keepdim=True).float()
        corners = F.max_pool2d(bright, patch, stride=1)[:, 0].nonzero()
        parts.append(corners + torch.tensor([start, 0, 0]))
    all_corners = torch.cat(parts).numpy()
    if not len(all_corners):
        raise ValueError(f"{data.name} holds only black patches of side {patch}, expected one that is not")
    return all_corners


def learn_dictionary(
    data: ImageSet,
    *,
    num_atoms: int = 500,
    patch: int = 4,
    regularization: float = 1.0,
    iterations: int = 1000,
    batch_size: int = 5,
    seed: int = 0,
    atoms: int | None = None,
) -> Tensor:
    """Returns atoms that minimize eq. 1, by online dictionary learning from random patches (Mairal et al., 2009).

    The atoms start as patches with random signs. In every iteration, an atom that no patch has used so far is replaced
    by a patch of the minibatch with a little noise. If there are few iterations for the number of atoms, many atoms
    end as near copies of the last patches. The same happens on dark images if lambda is too large (it is on the scale
    of pixels in [0, 1]). A warning is given if more than a quarter of the atoms are near copies.

    Args:
        data: The training images. Patches are in [0, 1], and their mean is not removed. Black patches, from which
            nothing can be learned, are left out.
        num_atoms: L, from 1 to 32,767.
        patch: n, the side of a patch.
        regularization: Lambda in eq. 1, above 0 and below sqrt(C) n, the largest norm of a patch. With a larger
            lambda every code is zero.
        iterations: The number of minibatches.
        batch_size: The number of patches in a minibatch.
        seed: The seed by which patches are drawn.
        atoms: The old name of ``num_atoms``, deprecated.

    Returns:
        (L, C, n, n) float32, each atom of unit l2 norm.

    Raises:
        TypeError: A setting has another type.
        ValueError: A setting is out of range, or all images are black.
    """
    if atoms is not None:
        warnings.warn("atoms is now num_atoms; the old name will be removed", DeprecationWarning, stacklevel=2)
        num_atoms = atoms
    check_settings(num_atoms, regularization, iterations, batch_size)
    channels, height, width = data.images.shape[1:]
    check_integer("patch", patch, 1, min(height, width))
    largest = math.sqrt(channels) * patch
    check_number("regularization", regularization, lambda weight: weight < largest, f"below {largest:.4g}, sqrt(C) n")
    if not bool(data.images.any()):
        raise ValueError(f"{data.name} holds only black images")
    generator = np.random.default_rng(derive_seed(seed, "dictionary"))
    sampler = PatchSampler(data, patch)
    start = normalize_rows(sampler.draw(num_atoms, generator).values)
    start *= generator.choice((-1.0, 1.0), (num_atoms, 1))
    learner = MiniBatchDictionaryLearning(
        n_components=num_atoms,
        alpha=regularization,
        batch_size=batch_size,
        dict_init=start,
        random_state=int(generator.integers(2**31)),
    )
    with warnings.catch_warnings():
        # scikit-learn warns where a code's path ends early because there is nothing left to explain.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in progress_bar(iterable=range(iterations), desc="learning the dictionary", unit="batch"):
            learner.partial_fit(sampler.draw(batch_size, generator).values)
    # scikit-learn keeps norms at 1 or below.
    components = normalize_rows(learner.components_)
    dictionary = torch.from_numpy(components).float().reshape(num_atoms, channels, patch, patch)
    warn_of_copies(dictionary, sampler.draw(MEASURED_PATCHES, generator).values, regularization)
    return dictionary


def check_settings(num_atoms: int, regularization: float, iterations: int, batch_size: int) -> None:
    """Refuses settings that work for no images. ``learn_dictionary`` also checks some settings against the images.

    Raises:
        TypeError: A setting has another type.
        ValueError: A setting is out of range.
    """
    check_integer("num_atoms", num_atoms, 1, MAX_ATOMS)
    check_number("regularization", regularization, lambda weight: weight > 0, "above 0")
    check_integer("iterations", iterations, 1)
    check_integer("batch_size", batch_size, 1)


def normalize_rows(matrix: np.ndarray) -> np.ndarray:
    """Returns the rows divided by their l2 norms.

    Raises:
        ValueError: A row is zero.
    """
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"{int((norms == 0).sum())} of {len(matrix)} atoms are zero, expected none")
    return matrix / norms


def warn_of_copies(atoms: Tensor, patches: np.ndarray, regularization: float) -> None:
    """Warns if many atoms are near copies, which explain no more together than one of them alone."""
    copies = near_copies(atoms)
    if copies <= MAX_COPIES * len(atoms):
        return
    norm = float(np.median(np.linalg.norm(patches, axis=1)))
    rank, max_rank = numerical_rank(atoms), min(len(atoms), atoms[0].numel())
    warnings.warn(
        f"{copies} of {len(atoms)} atoms are near copies of others, and their rank is {rank} of {max_rank}. With a "
        f"regularization of {regularization:g}, on the scale of pixels in [0, 1], patches with a median l2 norm of "
        f"{norm:.3g} use few atoms. Lower the regularization, or use more iterations, fewer atoms or brighter images",
        stacklevel=3,
    )
