"""Sizes of tiles, numbers of warps, and masks.

Sizes are functions of the shapes alone, and chosen for registers: with 65,536 registers on an SM, 16 warps have 128
registers a thread. ``python -m bench.gpu_budgets`` compiles the kernels with these sizes and prints the registers.
"""

import functools

import torch
import triton
import triton.language as tl

WARP = 32
# Threads of a warp of the GPUs that PyTorch was built for: a warp of AMD's has 64.
THREADS = 64 if torch.version.hip else WARP
LARGEST_ATOM_TILE = 1024
# The most atoms onto which a program holds a patch's projections; None for what the GPU allows.
REGISTER_ATOMS: int | None = None
PATCH_TILE = 8
# Patches whose projections a warp holds whole.
WARP_PATCHES = 4
PIXEL_TILE = 32
SURVIVOR_TILE = 4
# The shortest sum that a matrix product takes. Before version 3.8 Triton required 16 terms on NVIDIA's GPUs.
OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8)
LEAST_TERMS = 16 if OLD_TRITON and torch.version.hip is None else 8
# The most numbers in a tile. Triton refuses more than 2^20, and spills registers long before.
LARGEST_TILE = 2**15


def next_power_of_2(number: int) -> int:
    """Returns the least power of two that is at least ``number``. Triton's function takes far longer."""
    return 1 << max(number - 1, 0).bit_length()


def warps(elements: int, per_thread: int) -> int:
    """Returns the number of warps for a tile with ``per_thread`` elements in a thread: a power of two up to 16."""
    return min(next_power_of_2(num_tiles(elements, THREADS * per_thread)), 16)


def search_tile(num_atoms: int) -> int:
    """Returns how many atoms a program searches in registers: four at least for each lane."""
    return max(next_power_of_2(num_atoms), 4 * WARP)


def search_warps(atom_tile: int) -> int:
    """Returns the number of warps of a program that searches in registers: more for more atoms."""
    return min(max(atom_tile // 128, 2), 8)


def register_atoms(threads: int, is_blackwell: bool) -> int:
    """Returns the most atoms onto which a program can hold a patch's projections.

    The warps of AMD's GPUs, with 64 threads, hold products in other shapes than ``search.py`` needs, and spill. The
    compiler for NVIDIA's sm_100 needs more registers than that for sm_90, and spills from 1024 projections.
    """
    if threads != WARP:
        return 0
    return LARGEST_ATOM_TILE // 2 if is_blackwell else LARGEST_ATOM_TILE


@functools.cache
def is_blackwell() -> bool:
    """Returns whether the GPU is an sm_100 of NVIDIA's or a later one."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (10, 0)


def fits_registers(num_atoms: int) -> bool:
    """Returns whether a program can hold a patch's projections onto all atoms."""
    most = register_atoms(THREADS, is_blackwell()) if REGISTER_ATOMS is None else REGISTER_ATOMS
    return num_atoms <= most


def fits_fused(num_atoms: int) -> bool:
    """Returns whether registers suffice for the draw as well, while a program holds the projections."""
    return fits_registers(num_atoms) and num_atoms <= LARGEST_ATOM_TILE // 2


def atom_tile(num_atoms: int) -> int:
    """Returns how many atoms a program projects onto at once; a matrix product takes at least 16.

    Kernels for larger dictionaries go through them in tiles, and need registers for more than one tile.
    """
    return min(max(next_power_of_2(num_atoms), 16), LARGEST_ATOM_TILE // (1 if fits_registers(num_atoms) else 2))


def pixel_slice(num_atoms: int) -> int:
    """Returns how many pixels of a patch are multiplied at once, so that this slice of the atoms takes 32 KiB."""
    return max(min(8192 // atom_tile(num_atoms), 16), LEAST_TERMS)


def slot_tile(top_t: int) -> int:
    """Returns how many slots of a code a program handles at once."""
    return min(next_power_of_2(top_t), 128)


def channel_tile(channels: int) -> int:
    """Returns how many output channels a program handles at once."""
    return min(next_power_of_2(channels), 128)


def run_tile(length: int) -> int:
    """Returns how many numbers of a run of weights a program handles at once."""
    return min(next_power_of_2(length), 512)


def num_tiles(size: int, tile: int) -> int:
    """Returns how many tiles cover ``size``."""
    return -(-size // tile)


@triton.jit
def only_if(condition, mask):
    """Returns the mask where the scalar condition holds, False elsewhere.

    On a GPU ``condition & mask`` is the same. Triton's interpreter (3.9) does not accept it as a mask of loads.
    """
    return tl.where(condition, mask, False)
