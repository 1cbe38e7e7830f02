"""Measures of a dictionary on patches: how well and how sparsely it explains them, and what it correlates with."""

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
        gap: (K,) by how much the objective may exceed its minimum over all codes, at most: the duality gap.
        nonzeros: (K,) coefficients of the code that are not zero.
        uses: (L,) patches whose codes each atom is in.
    """

    objective: np.ndarray
    gap: np.ndarray
    nonzeros: np.ndarray
    uses: np.ndarray


def sparse_fit(atoms: Tensor, patches: np.ndarray, regularization: float) -> SparseFit:
    """Solves eq. 1 for the codes, the dictionary fixed, by least angle regression.

    Args:
        atoms: (L, C, n, n).
        patches: (K, C n n), as ``random_patches`` gives them.
        regularization: lambda, above 0.
    """
    dictionary = flat(atoms)
    objective, gap, nonzeros, uses = [], [], [], np.zeros(len(dictionary), np.int64)
    for start in progress_bar(iterable=range(0, len(patches), PATCHES_AT_ONCE), desc="sparse codes", unit="batch"):
        some = patches[start : start + PATCHES_AT_ONCE]
        with warnings.catch_warnings():
            # Whether a path ended too early is told by the gap.
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = sparse_encode(some, dictionary, algorithm="lasso_lars", alpha=regularization)
        residual = some - codes @ dictionary
        value = 0.5 * np.square(residual).sum(1) + regularization * np.abs(codes).sum(1)
        objective.append(value)
        gap.append(value - lower_bound(some, residual, dictionary, regularization))
        nonzeros.append(np.count_nonzero(codes, 1))
        uses += np.count_nonzero(codes, 0)
    return SparseFit(np.concatenate(objective), np.concatenate(gap), np.concatenate(nonzeros), uses)


def lower_bound(
    patches: np.ndarray, residual: np.ndarray, dictionary: np.ndarray, regularization: float
) -> np.ndarray:
    """(K,) what no code's objective is below: the dual function at the residual, scaled until it is feasible."""
    correlation = np.abs(residual @ dictionary.T).max(1, keepdims=True)
    dual = residual * (regularization / np.maximum(correlation, regularization))
    return 0.5 * (np.square(patches) - np.square(patches - dual)).sum(1)


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: np.ndarray, image: np.ndarray) -> "Mean":
        """Over patches; those of one image are alike, so the error is that of sums over images.

        Args:
            values: (K,) one a patch.
            image: (K,) the image of each patch, as in ``Patches``; at least two different ones.
        """
        mean = float(values.mean())
        _, group = np.unique(image, return_inverse=True)
        sums = np.bincount(group, values - mean)
        if len(sums) < 2:
            raise ValueError(f"image names {len(sums)} image, expected at least 2 for a standard error")
        scale = len(sums) / (len(sums) - 1)
        return cls(mean, math.sqrt(scale * float(np.square(sums).sum())) / len(values))


def correlations(atoms: Tensor, patches: np.ndarray) -> np.ndarray:
    """(K, L) normalized correlations of patches with atoms, eq. 6: <x, d> / ||d||_2^2."""
    dictionary = flat(atoms)
    return patches @ dictionary.T / np.square(dictionary).sum(1)


@torch.no_grad()
def activations(classifier: ResNet32, patches: np.ndarray) -> np.ndarray:
    """(K, 16 (n - 2)^2) normalized activations of the classifier's first layer, eq. 7: <x, f> / ||f||_2^2.

    The filters f are 3 x 3 and see the patch at each of the (n - 2)^2 places where they lie wholly inside it. x is
    what the layer is given: the patch after the classifier's own normalization of its input.

    Args:
        classifier: whose ``conv1`` and normalization are used.
        patches: (K, C n n) in [0, 1], n at least 3.
    """
    filters = classifier.conv1.weight.double()
    channels, side = filters.shape[1:3]
    patch = math.isqrt(patches.shape[1] // channels)
    if patches.shape[1] != channels * patch**2 or patch < side:
        raise ValueError(
            f"patches are {patches.shape[1]} numbers each, expected {channels} x n x n with n at least {side}"
        )
    images = torch.from_numpy(patches).reshape(-1, channels, patch, patch)
    given = (images - classifier.mean) / classifier.std
    scale = filters.square().sum((1, 2, 3)).reshape(-1, 1, 1)
    return (F.conv2d(given, filters) / scale).flatten(1).numpy()


def l1_norms(atoms: Tensor) -> Tensor:
    """(L,) float64; by eq. 3 they scale the dead zone and the values of the code."""
    return atoms.double().abs().sum((1, 2, 3))


def near_copies(atoms: Tensor, cosine: float = 0.999) -> int:
    """Atoms that another one equals up to sign: the magnitude of their cosine is at least ``cosine``."""
    dictionary = torch.from_numpy(flat(atoms))
    cosines = (dictionary @ dictionary.T).abs().fill_diagonal_(0)
    return int((cosines.amax(1) >= cosine).sum())


def numerical_rank(atoms: Tensor, share: float = 0.01) -> int:
    """Singular values of the atoms, as rows, that are above ``share`` of the largest."""
    values = torch.linalg.svdvals(torch.from_numpy(flat(atoms)))
    return int((values > share * values[0]).sum())


def flat(atoms: Tensor) -> np.ndarray:
    """(L, C n n) float64."""
    return atoms.flatten(1).double().cpu().numpy()
