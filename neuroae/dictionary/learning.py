"""Dictionary learning: the atoms of the encoder, from patches of clean images."""

import math
import warnings

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ..data import ImageSet
from ..encoder import check_integer, check_number
from ..kernels.shapes import MAX_ATOMS
from ..progress import progress_bar
from ..randomness import derive_seed
from .measures import near_copies, numerical_rank
from .patches import PatchSampler

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
