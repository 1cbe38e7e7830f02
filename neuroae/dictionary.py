"""Dictionary learning (paper, section 2.1): the atoms of the encoder, from patches of clean images."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from tqdm.auto import tqdm

from .data import ImageSet
from .encoder import check_atoms
from .randomness import derive_seed
from .storage import load_tensors, save_tensors


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

    Args:
        data: the training images; patches are raw, in [0, 1], the mean not removed. Black ones teach nothing and
            are passed over.
        atoms: L.
        patch: n, side of a patch.
        regularization: lambda in eq. 1.
        iterations: minibatches.
        batch_size: patches in a minibatch.
        seed: decides which patches are seen.

    Returns:
        (L, C, n, n) float32, each atom of unit l2 norm.
    """
    channels, height, width = data.images.shape[1:]
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch is {patch}, expected 1 to {min(height, width)} for images of {height} x {width}")
    for name, value in {"atoms": atoms, "iterations": iterations, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if not bool(data.images.any()):
        raise ValueError(f"{data.name} holds only black images")
    generator = np.random.default_rng(derive_seed(seed, "dictionary"))
    start = unit(random_patches(data, patch, atoms, generator)) * generator.choice((-1.0, 1.0), (atoms, 1))
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
        for _ in tqdm(range(iterations), desc="dictionary", unit="batch"):
            learner.partial_fit(random_patches(data, patch, batch_size, generator))
    learned = unit(learner.components_)
    return torch.from_numpy(learned).float().reshape(atoms, channels, patch, patch)


def random_patches(data: ImageSet, patch: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, C n n) float64 in [0, 1], patches drawn uniformly from those that are not black."""
    channels, height, width = data.images.shape[1:]
    images = data.images.numpy()
    offsets = np.arange(patch)
    found = np.empty((0, channels * patch * patch))
    while len(found) < count:
        image = generator.integers(len(images), size=count)[:, None, None]
        rows = generator.integers(height - patch + 1, size=count)[:, None, None] + offsets[:, None]
        columns = generator.integers(width - patch + 1, size=count)[:, None, None] + offsets
        drawn = images[image, :, rows, columns].transpose(0, 3, 1, 2).reshape(count, -1) / data.white
        found = np.concatenate([found, drawn[drawn.any(1)]])
    return found[:count]


def unit(atoms: np.ndarray) -> np.ndarray:
    """Rows divided by their l2 norms."""
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"{int((norms == 0).sum())} of {len(atoms)} atoms are zero; use more iterations")
    return atoms / norms


def save_dictionary(path: Path, atoms: Tensor, notes: dict[str, Any] | None = None) -> None:
    """Writes (L, C, n, n) atoms as safetensors, with notes that JSON holds: settings, the data's fingerprint."""
    save_tensors(path, {"atoms": atoms}, notes)


def load_dictionary(path: Path) -> Tensor:
    """The (L, C, n, n) float32 unit-norm atoms of a file; ValueError names the file and what is wrong."""
    tensors, _ = load_tensors(path)
    if "atoms" not in tensors:
        raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, expected a tensor named atoms")
    try:
        check_atoms(tensors["atoms"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a dictionary: {error}") from error
    return tensors["atoms"]
