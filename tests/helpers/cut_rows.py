"""Rows of projections that are hard to cut (neighbouring floats, ties, denormals), and their top T in plain Python.

The rows are exactly the projections of an image: each of its pixels is 1 in one channel and 0 in the others, and an
atom has one pixel.
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
    "a row of ties",
    "two values that tie",
)
ATOMS = (2, 33, 129, 300)
ROWS = 12


def cut_rows(kind: str, num_atoms: int) -> Tensor:
    """Returns (ROWS, num_atoms) float32."""
    generator = np.random.default_rng(num_atoms)
    shape = (ROWS, num_atoms)
    signs = generator.choice((-1.0, 1.0), shape).astype(np.float32)
    steps = np.argsort(generator.random(shape), axis=1)  # each number once in each row
    half, one = (np.float32(value).view(np.int32) for value in (0.3, 1.0))
    magnitudes = {
        "neighbouring floats": half + steps,
        "neighbouring floats around a power of two": one - num_atoms // 2 + steps,
        "equal magnitudes of opposite sign": half + steps // 2,
        "denormals": 1 + steps,
        "denormals and zeros of both signs": steps // 3,
        "a row of ties": np.broadcast_to(half + np.arange(ROWS)[:, None], shape),
        "two values that tie": half + generator.integers(2, size=shape),
    }[kind]
    return torch.from_numpy(magnitudes.astype(np.int32).view(np.float32) * signs)


def select_arguments(rows: Tensor, top_t: int) -> tuple[Any, ...]:
    """Returns images (1, ROWS, 1, ROWS) and atoms whose projections are the rows, one in each patch, with stride 1."""
    return torch.eye(len(rows)).reshape(1, len(rows), 1, len(rows)), rows.T.reshape(-1, len(rows), 1, 1), 1, top_t


def largest(rows: Tensor, top_t: int) -> list[list[int]]:
    """Returns the top T of each row: the largest magnitudes, ties to the lower atom, in ascending order."""
    return [
        sorted(sorted(range(len(row)), key=lambda atom: (-abs(row[atom]), atom))[:top_t])
        for row in rows.double().tolist()
    ]


def counts(num_atoms: int) -> list[int]:
    """Returns values of T: one, all, and some between."""
    return sorted({1, 2, num_atoms // 3 + 1, num_atoms // 2 + 1, num_atoms - 1, num_atoms})


def assert_cut(actual: tuple[Tensor, Tensor], rows: Tensor, top_t: int) -> None:
    """Compares atoms (1, 1, ROWS, T) and their projections with the rows' top T, to the bit."""
    atom, projection = actual
    expected = largest(rows, top_t)
    assert atom[0, 0].tolist() == expected
    assert torch.equal(projection[0, 0], rows.gather(1, torch.tensor(expected)))
