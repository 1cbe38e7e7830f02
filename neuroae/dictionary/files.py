"""Dictionaries as files."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from ..nn.atoms import check_atoms
from ..utils.files import load_tensors, save_tensors


def save_dictionary(path: str | Path, atoms: Tensor, notes: dict[str, Any] | None = None) -> None:
    """Writes (L, C, n, n) atoms as safetensors, with notes that JSON holds: settings, the data's fingerprint."""
    save_tensors(Path(path), {"atoms": atoms}, notes)


def load_dictionary(path: str | Path) -> Tensor:
    """The (L, C, n, n) float32 unit-norm atoms of a file; ValueError names the file and what is wrong."""
    tensors, _ = load_tensors(Path(path))
    if "atoms" not in tensors:
        raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, expected a tensor named atoms")
    try:
        check_atoms(tensors["atoms"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a dictionary: {error}") from error
    return tensors["atoms"]


def dictionary_digest(atoms: Tensor) -> str:
    """Hexadecimal SHA-256 of the atoms' numbers, which tells dictionaries apart."""
    return hashlib.sha256(atoms.cpu().numpy().tobytes()).hexdigest()
