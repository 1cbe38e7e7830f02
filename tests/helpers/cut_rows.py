"""Projections that are hard to cut, as neighbouring floats, ties and denormals are; the top T of each in plain Python.

The rows become the projections of an image exactly: each pixel of the image is 1 in one channel and 0 in the others,
and the atoms are of one pixel.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = (
    "neighbouring floats",
    "neighbouring floats around a power of two",
    "equal magnitudes of opposite sign",
    "denormals",
    "denormals and zeros of both signs",
    "ties of the whole row",
    "two values that tie",
)
ATOMS = (2, 33, 129, 300)
ROWS = 12


def cut_rows(kind: str, atoms: int) -> Tensor:
    """(ROWS, atoms) float32."""
    generator = np.random.default_rng(atoms)
    shape = (ROWS, atoms)
    signs = generator.choice((-1.0, 1.0), shape).astype(np.float32)
    apart = np.argsort(generator.random(shape), axis=1)  # each number of steps once a row
    half, one = (np.float32(value).view(np.int32) for value in (0.3, 1.0))
    magnitudes = {
        "neighbouring floats": half + apart,
        "neighbouring floats around a power of two": one - atoms // 2 + apart,
        "equal magnitudes of opposite sign": half + apart // 2,
        "denormals": 1 + apart,
        "denormals and zeros of both signs": apart // 3,
        "ties of the whole row": np.broadcast_to(half + np.arange(ROWS)[:, None], shape),
        "two values that tie": half + generator.integers(2, size=shape),
    }[kind]
    return torch.from_numpy(magnitudes.astype(np.int32).view(np.float32) * signs)


def select_arguments(rows: Tensor, top_t: int) -> tuple[Any, ...]:
    """Images (1, ROWS, 1, ROWS) and atoms whose projections are the rows, one a patch, with stride 1."""
    return torch.eye(len(rows)).reshape(1, len(rows), 1, len(rows)), rows.T.reshape(-1, len(rows), 1, 1), 1, top_t


def largest(rows: Tensor, top_t: int) -> list[list[int]]:
    """The top T of each row: the largest in magnitude, ties to the lower atom, in ascending order."""
    return [
        sorted(sorted(range(len(row)), key=lambda atom: (-abs(row[atom]), atom))[:top_t])
        for row in rows.double().tolist()
    ]


def counts(atoms: int) -> list[int]:
    """Every kind of T: one, all, and some between."""
    return sorted({1, 2, atoms // 3 + 1, atoms // 2 + 1, atoms - 1, atoms})


def assert_cut(actual: tuple[Tensor, Tensor], rows: Tensor, top_t: int) -> None:
    """Atoms (1, 1, ROWS, T) and their projections, to the bit."""
    atom, projection = actual
    expected = largest(rows, top_t)
    assert atom[0, 0].tolist() == expected
    assert torch.equal(projection[0, 0], rows.gather(1, torch.tensor(expected)))
