"""Measures of a dictionary: how well and sparsely it explains patches, correlations, norms and near copies."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ..nn.classifiers import ResNet32
from ..utils.progress import progress_bar

PATCHES_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class SparseFit:
    """The best sparse codes of K patches.

    Attributes:
        objective: (K,) each patch's term of eq. 1, 0.5 ||x - D a||_2^2 + lambda ||a||_1, in squared pixels of [0, 1].
        gap: (K,) the duality gap, a bound on how much the objective exceeds its minimum over all codes.
        nonzeros: (K,) the number of nonzero coefficients of each patch's code.
        uses: (L,) the number of codes that contain each atom.
    """

    objective: np.ndarray
    gap: np.ndarray
    nonzeros: np.ndarray
    uses: np.ndarray


def sparse_fit(atoms: Tensor, patches: np.ndarray, regularization: float) -> SparseFit:
    """Solves eq. 1 for the codes, with the dictionary fixed, by least angle regression.

    Args:
        atoms: (L, C, n, n).
        patches: (K, C n n), such as the values of ``random_patches``.
        regularization: Lambda, above 0.
    """
    dictionary = flatten(atoms)
    objective, gap, nonzeros, uses = [], [], [], np.zeros(len(dictionary), np.int64)
    for start in progress_bar(iterable=range(0, len(patches), PATCHES_AT_ONCE), desc="sparse coding", unit="batch"):
        chunk = patches[start : start + PATCHES_AT_ONCE]
        with warnings.catch_warnings():
            # The duality gap, computed below, shows whether a path ended too early.
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = sparse_encode(chunk, dictionary, algorithm="lasso_lars", alpha=regularization)
        residual = chunk - codes @ dictionary
        value = 0.5 * np.square(residual).sum(1) + regularization * np.abs(codes).sum(1)
        objective.append(value)
        gap.append(value - lower_bound(chunk, residual, dictionary, regularization))
        nonzeros.append(np.count_nonzero(codes, 1))
        uses += np.count_nonzero(codes, 0)
    return SparseFit(np.concatenate(objective), np.concatenate(gap), np.concatenate(nonzeros), uses)


def lower_bound(
    patches: np.ndarray, residual: np.ndarray, dictionary: np.ndarray, regularization: float
) -> np.ndarray:
    """Returns a lower bound on each patch's objective, (K,): the dual function at the scaled residual."""
    correlation = np.abs(residual @ dictionary.T).max(1, keepdims=True)
    dual = residual * (regularization / np.maximum(correlation, regularization))
    return 0.5 * (np.square(patches) - np.square(patches - dual)).sum(1)


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error.

    Attributes:
        value: The mean.
        error: The standard error.
    """

    value: float
    error: float

    @classmethod
    def of(cls, values: np.ndarray, image: np.ndarray) -> "Mean":
        """Returns the mean over patches.

        Patches of one image are alike, so the error is computed from sums over images.

        Args:
            values: (K,) a value for each patch.
            image: (K,) the image of each patch, as in ``Patches``.

        Raises:
            ValueError: All patches are of one image.
        """
        mean = float(values.mean())
        _, group = np.unique(image, return_inverse=True)
        sums = np.bincount(group, values - mean)
        if len(sums) < 2:
            raise ValueError(f"image holds {len(sums)} image, expected at least 2 for a standard error")
        scale = len(sums) / (len(sums) - 1)
        return cls(mean, math.sqrt(scale * float(np.square(sums).sum())) / len(values))


def correlations(atoms: Tensor, patches: np.ndarray) -> np.ndarray:
    """Returns the normalized correlations of patches with atoms (eq. 6), <x, d> / ||d||_2^2.

    Args:
        atoms: (L, C, n, n).
        patches: (K, C n n) in [0, 1].

    Returns:
        (K, L) float64.
    """
    dictionary = flatten(atoms)
    return patches @ dictionary.T / np.square(dictionary).sum(1)


@torch.no_grad()
def activations(classifier: ResNet32, patches: np.ndarray) -> np.ndarray:
    """Returns the normalized activations of the classifier's first layer (eq. 7), <x, f> / ||f||_2^2.

    The 16 filters f are 3 x 3. x is the part of a patch under a filter, normalized like the classifier's input.

    Args:
        classifier: The classifier with the first layer ``conv1``.
        patches: (K, C n n) in [0, 1], n at least 3.

    Returns:
        (K, 16 (n - 2)^2) float64, for all places where a filter fits inside the patch.

    Raises:
        ValueError: The patches have another number of channels, or are smaller than the filters.
    """
    filters = classifier.conv1.weight.double()
    channels, side = filters.shape[1:3]
    patch = math.isqrt(patches.shape[1] // channels)
    if patches.shape[1] != channels * patch**2 or patch < side:
        raise ValueError(
            f"patches are {patches.shape[1]} numbers each, expected {channels} x n x n with n at least {side}"
        )
    images = torch.from_numpy(patches).reshape(-1, channels, patch, patch)
    normalized = (images - classifier.mean) / classifier.std
    scale = filters.square().sum((1, 2, 3)).reshape(-1, 1, 1)
    return (F.conv2d(normalized, filters) / scale).flatten(1).numpy()


def l1_norms(atoms: Tensor) -> Tensor:
    """Returns the atoms' l1 norms, (L,) float64, which scale the dead zone and the values of the code (eq. 3)."""
    return atoms.double().abs().sum((1, 2, 3))


def near_copies(atoms: Tensor, cosine: float = 0.999) -> int:
    """Returns the number of atoms that are near copies of another one, up to sign.

    Args:
        atoms: (L, C, n, n).
        cosine: Two atoms are near copies if the magnitude of their cosine is at least this.
    """
    dictionary = torch.from_numpy(flatten(atoms))
    cosines = (dictionary @ dictionary.T).abs().fill_diagonal_(0)
    return int((cosines.amax(1) >= cosine).sum())


def numerical_rank(atoms: Tensor, share: float = 0.01) -> int:
    """Returns the number of singular values of the atoms above ``share`` of the largest one."""
    values = torch.linalg.svdvals(torch.from_numpy(flatten(atoms)))
    return int((values > share * values[0]).sum())


def flatten(atoms: Tensor) -> np.ndarray:
    """Returns the atoms as rows, (L, C n n) float64."""
    return atoms.flatten(1).double().cpu().numpy()
