"""Dictionaries as files."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from ..nn.atoms import check_atoms
from ..utils.files import load_tensors, save_tensors


def save_dictionary(path: str | Path, atoms: Tensor, notes: dict[str, Any] | None = None) -> None:
    """Writes a dictionary as safetensors.

    Args:
        path: The file.
        atoms: (L, C, n, n) float32, each atom of unit l2 norm.
        notes: Values that JSON can hold, such as settings and the fingerprint of the images.

    Raises:
        OSError: The file cannot be written.
    """
    save_tensors(Path(path), {"atoms": atoms}, notes)


def load_dictionary(path: str | Path) -> Tensor:
    """Returns the atoms of a file, (L, C, n, n) float32, each of unit l2 norm.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no dictionary, or is damaged.
    """
    tensors, _ = load_tensors(Path(path))
    if "atoms" not in tensors:
        raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, expected a tensor named atoms")
    try:
        check_atoms(tensors["atoms"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a dictionary: {error}") from error
    return tensors["atoms"]


def dictionary_digest(atoms: Tensor) -> str:
    """Returns the SHA-256 digest of the atoms' values, in hexadecimal, which distinguishes dictionaries."""
    return hashlib.sha256(atoms.cpu().numpy().tobytes()).hexdigest()
