"""An encoder's dictionary: its checks, the numbers that follow from it, and whether it has changed."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.ops import MAX_ATOMS

UNIT_NORM_TOLERANCE = 1e-4
# An attack with budget epsilon moves a typical projection by about this share of epsilon times the mean l1 norm.
WIDTH_SHARE = 0.1


class Levels(NamedTuple):
    """The numbers that follow from a dictionary.

    Attributes:
        norms: (L,) float32, the l1 norm of each atom.
        dead_zone: (L,) float32, beta * epsilon * norm.
        selection_width: The default of ``SparseEncoder.selection_width``.
    """

    norms: Tensor
    dead_zone: Tensor
    selection_width: float


def measure_levels(atoms: Tensor, epsilon: float, beta: float) -> Levels:
    """Computes the levels of a dictionary (paper, eq. 3), without a gradient."""
    with torch.inference_mode(False), torch.no_grad():
        norms = atoms.double().abs().sum((1, 2, 3))
        dead_zone = (beta * epsilon * norms).float()
        # A Python number: reading a tensor from a GPU in every call would wait for the device.
        width = 0.0 if norms.is_meta else WIDTH_SHARE * epsilon * float(norms.mean())
        return Levels(norms.float(), dead_zone, width)


@dataclass(frozen=True, eq=False)
class AtomsState:
    """A dictionary at one moment. It is not a tuple, because fingerprints of models would include a tuple's numbers.

    Attributes:
        atoms: The dictionary's tensor.
        version: The number of its changes in place; None where PyTorch does not count them.
        selection_width: The default selection width, which follows from the dictionary.
    """

    atoms: Tensor
    version: int | None
    selection_width: float

    @classmethod
    def of(cls, atoms: Tensor, selection_width: float) -> "AtomsState":
        """Returns the state of these atoms now."""
        return cls(atoms, tensor_version(atoms), selection_width)

    def is_of(self, atoms: Tensor) -> bool:
        """Returns whether ``atoms`` is the same tensor, unchanged. Compares identity and version, no values."""
        return self.atoms is atoms and self.version in (None, tensor_version(atoms))


def tensor_version(tensor: Tensor) -> int | None:
    """Returns how often a tensor was changed in place, or None where PyTorch does not count."""
    return None if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def check_atoms(atoms: Tensor) -> None:
    """Checks the shape, the dtype and the norms of a dictionary.

    Raises:
        TypeError: ``atoms`` is not a float32 tensor.
        ValueError: ``atoms`` is not (L, C, n, n), has more than 32,767 atoms, or an atom does not have unit l2 norm.
    """
    if not isinstance(atoms, Tensor):
        raise TypeError(f"atoms is a {type(atoms).__name__}, expected a tensor")
    if atoms.dtype != torch.float32:
        raise TypeError(f"atoms has dtype {atoms.dtype}, expected torch.float32")
    if atoms.dim() != 4 or atoms.shape[2] != atoms.shape[3] or atoms.numel() == 0:
        raise ValueError(f"atoms has shape {tuple(atoms.shape)}, expected (L, C, n, n)")
    if atoms.shape[0] > MAX_ATOMS:
        raise ValueError(f"atoms holds {atoms.shape[0]} atoms, expected at most {MAX_ATOMS}")
    if atoms.is_meta:
        return
    norms = atoms.double().square().sum((1, 2, 3)).sqrt()
    if not bool(((norms - 1).abs() <= UNIT_NORM_TOLERANCE).all()):
        raise ValueError(
            f"atoms has l2 norms from {norms.min():.6g} to {norms.max():.6g}, expected 1 "
            f"(tolerance {UNIT_NORM_TOLERANCE:g}); divide each atom by its norm"
        )
