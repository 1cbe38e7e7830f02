"""Sizes of tiles and numbers of warps, as functions of the shapes alone.

They are chosen for registers: ``python -m bench.gpu_budgets`` compiles what these functions select and prints what
comes of it. 65,536 registers an SM give 16 warps 128 each.
"""

import torch
import triton
from triton import cdiv, next_power_of_2

WARP = 32
LARGEST_ATOM_TILE = 1024
PATCH_TILE = 8
PIXEL_TILE = 32
SURVIVOR_TILE = 4
# Terms of a sum that a matrix product takes at least; for NVIDIA's GPUs Triton wanted 16 before 3.8.
OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8)
LEAST_TERMS = 16 if OLD_TRITON and torch.version.hip is None else 8
# Numbers that a program holds at a time: Triton refuses more than 2^20, and spills registers long before.
LARGEST_TILE = 2**15


def warps(elements: int, each: int) -> int:
    """For a tile of so many elements with ``each`` a thread: a power of two up to 16."""
    return min(max(elements // (WARP * each), 1), 16)


def fits_registers(atoms: int) -> bool:
    """Whether a program can hold a patch's projections onto all atoms."""
    return atoms <= LARGEST_ATOM_TILE


def atom_tile(atoms: int) -> int:
    """Atoms that a program projects onto at once; a matrix product takes 16 or more.

    A dictionary that does not fit is walked in tiles, in a kernel that needs registers for more than one.
    """
    return max(next_power_of_2(atoms), 16) if fits_registers(atoms) else LARGEST_ATOM_TILE // 2


def pixel_slice(atoms: int) -> int:
    """Pixels of a patch multiplied at once: as the atoms' slice in 32 KiB of shared memory allows, or the least."""
    return max(min(8192 // atom_tile(atoms), 16), LEAST_TERMS)


def slot_tile(top_t: int) -> int:
    """Slots of a code that a program handles at once."""
    return min(next_power_of_2(top_t), 128)


def channel_tile(channels: int) -> int:
    """Output channels that a program handles at once."""
    return min(next_power_of_2(channels), 128)


def run_tile(length: int) -> int:
    """Numbers of a run of weights that a program handles at once."""
    return min(next_power_of_2(length), 512)


def blocks(size: int, tile: int) -> int:
    """Tiles that cover ``size``."""
    return int(cdiv(size, tile))
