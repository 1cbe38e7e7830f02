"""The compiled library: its path, the structures that its functions take, loading it, and calling it.

The structures repeat those of ``src/abi.h`` field by field.
"""

import ctypes
import functools
import hashlib
import os
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import check_code
from ..errors import BackendMissing

FOLDER = Path(__file__).parent
LIBRARY_NAME = "libneuroae_cpu.so"
BUILD_ERROR = FOLDER / "build-error.txt"
OTHER_VERSION = "the C++ backend at {} is of another version: build the package again"
BAD_INDEX, NO_MEMORY, FORKED = 2, 3, 4  # kBadIndex, kNoMemory and kForked of abi.h
INSTRUCTION_SETS = ("plain", "avx2", "avx512", "avx512_bf16")

Fields = list[tuple[str, Any]]


def pointers(*names: str) -> Fields:
    return [(name, c_void_p) for name in names]


def sizes(*names: str) -> Fields:
    return [(name, c_int64) for name in names]


def flags(*names: str) -> Fields:
    return [(name, c_int32) for name in names]


class Images(Structure):
    _fields_ = [
        *pointers("pixels"),
        *sizes("count", "channels", "height", "width"),
        ("low", c_float),
        ("high", c_float),
    ]


class Dictionary(Structure):
    _fields_ = [*pointers("atoms", "norms", "dead_zone"), *sizes("count", "channels", "patch", "stride")]


class Draws(Structure):
    _fields_ = [
        *pointers("image_ids"),
        *sizes("seed", "start"),
        ("drop_below", c_uint64),
        *flags("quantize", "is_signed"),
    ]


class Selection(Structure):
    _fields_ = [*pointers("atom", "projection"), *sizes("images", "patches_h", "patches_w", "top_t")]


class Code(Structure):
    _fields_ = [
        *pointers("index", "value", "projection", "count"),
        *sizes("rows", "patches_h", "patches_w", "top_t"),
    ]


class Gradient(Structure):
    _fields_ = [
        *sizes("images", "height", "width"),
        *flags("surrogate", "quantize", "is_signed"),
        ("sigma", c_double),
    ]


class Membership(Structure):
    _fields_ = [
        *pointers("grad_code"),
        *sizes("patches_h", "patches_w", "top_t"),
        ("width", c_float),
        *flags("quantize", "is_signed"),
    ]


class Layer(Structure):
    _fields_ = [
        *pointers("weight", "bias"),
        *flags("dtype", "relu"),
        *sizes("atoms", "channels", "kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w"),
        *sizes("height", "width"),
    ]


class Maps(Structure):
    _fields_ = [
        *pointers("data", "positive"),
        *flags("dtype"),
        *sizes("rows", "height", "width", "channels"),
    ]


class Filters(Structure):
    _fields_ = [
        *pointers("weight", "bias"),
        *sizes("inputs", "outputs", "padding"),
        *flags("flipped", "relu", "rounded"),
    ]


STRUCTURES = (Images, Dictionary, Draws, Selection, Code, Gradient, Membership, Layer, Maps, Filters)

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "select": (POINTER(Images), POINTER(Dictionary), POINTER(Selection), c_int32),
    "draw": (POINTER(Selection), POINTER(Dictionary), POINTER(Draws), POINTER(Code), c_int32),
    "encode": (POINTER(Images), POINTER(Dictionary), POINTER(Draws), POINTER(Code), c_int32),
    "encode_backward": (c_void_p, POINTER(Code), POINTER(Dictionary), POINTER(Gradient), c_void_p, c_int32),
    "selection_backward": (POINTER(Images), POINTER(Dictionary), POINTER(Membership), c_void_p, c_int32),
    "conv_transpose": (POINTER(Code), POINTER(Layer), c_void_p, c_int32),
    "conv_transpose_backward_value": (c_void_p, c_void_p, POINTER(Code), POINTER(Layer), c_void_p, c_int32),
    "conv_transpose_backward_weight": (
        c_void_p,
        c_void_p,
        POINTER(Code),
        POINTER(Layer),
        c_void_p,
        c_void_p,
        c_int32,
    ),
    "convolve": (POINTER(Maps), POINTER(Filters), c_void_p, c_int32),
    "convolve_backward_weight": (POINTER(Maps), POINTER(Maps), c_void_p, c_void_p, c_int32),
}


def library_path() -> Path:
    """Returns ``NEUROAE_CPU_LIBRARY`` if it is set (for example to a sanitized build), else the package's library."""
    return Path(os.environ.get("NEUROAE_CPU_LIBRARY") or FOLDER / LIBRARY_NAME)


@functools.cache
def digest() -> str:
    """Returns the SHA-256 sum of the library's file, in hexadecimal, from when the library was loaded."""
    return hashlib.sha256(library_path().read_bytes()).hexdigest()


@functools.cache
def library() -> ctypes.CDLL:
    """Returns the loaded library, with its functions declared.

    ``NEUROAE_CPU_ISA`` lowers the instruction set. If the processor lacks the set that it names, ``plain`` is used.

    Raises:
        BackendMissing: The library was not built, does not load, or belongs to other sources.
        ValueError: ``NEUROAE_CPU_ISA`` names no instruction set.
    """
    isa = os.environ.get("NEUROAE_CPU_ISA")
    if isa and isa not in INSTRUCTION_SETS:
        raise ValueError(f"NEUROAE_CPU_ISA is {isa!r}, expected one of {', '.join(INSTRUCTION_SETS)}")
    path = library_path()
    if not path.exists():
        is_ours = path == FOLDER / LIBRARY_NAME and BUILD_ERROR.exists()
        reason = BUILD_ERROR.read_text().strip() if is_ours else f"there is no {path.name} at {path.parent}"
        raise BackendMissing(f"the C++ backend is missing: {reason}")
    try:
        loaded = ctypes.CDLL(str(path))
        for name, arguments in ARGUMENTS.items():
            function = getattr(loaded, f"neuroae_{name}")
            function.argtypes = arguments
            function.restype = c_int32
        loaded.neuroae_isa.restype = loaded.neuroae_sources.restype = c_char_p
        loaded.neuroae_structure_sizes.restype = POINTER(c_int64)
    except OSError as error:
        raise BackendMissing(f"the C++ backend does not load: {error}") from error
    except AttributeError as error:  # the library lacks a function
        raise BackendMissing(OTHER_VERSION.format(path)) from error
    if not has_same_structures(loaded) or source_digest() not in (None, loaded.neuroae_sources().decode()):
        raise BackendMissing(OTHER_VERSION.format(path))
    digest()
    return loaded


def has_same_structures(loaded: ctypes.CDLL) -> bool:
    """Returns whether the library was built with structures of the same number and sizes."""
    actual = loaded.neuroae_structure_sizes()
    expected = [ctypes.sizeof(structure) for structure in STRUCTURES]
    return bool(actual[0] == len(expected) and actual[1 : 1 + len(expected)] == expected)


def source_digest() -> str | None:
    """Returns a digest of the sources, as CMakeLists.txt computes it; None without sources, as in a wheel."""
    files = sorted(file for ending in ("cpp", "h") for file in FOLDER.glob(f"src/*.{ending}"))
    digests = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest() if files else None


def instruction_set() -> str:
    """Returns the instruction set that the library uses on this machine: avx512_bf16, avx512, avx2 or plain."""
    name: bytes = library().neuroae_isa()
    return name.decode()


def run(operation: str, *arguments: object) -> int:
    """Calls a function of the library on ``torch.get_num_threads()`` threads, and returns its status.

    ctypes releases the interpreter lock during the call.

    Raises:
        MemoryError: The library could not allocate scratch memory.
        RuntimeError: The process was forked from one that had computed in parallel.
    """
    status: int = getattr(library(), f"neuroae_{operation}")(*arguments, torch.get_num_threads())
    if status == NO_MEMORY:
        raise MemoryError(f"the C++ backend has no memory for {operation}")
    if status == FORKED:
        raise RuntimeError(
            f"{operation} runs in a forked process, whose parent computed in parallel: the parent's threads do not "
            "exist here, and waiting for them would never end. Start processes by spawn "
            "(torch.multiprocessing.get_context('spawn')), or call torch.set_num_threads(1) first"
        )
    return status


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def code_struct(index: Tensor, value: Tensor | None, projection: Tensor | None, count: Tensor) -> Code:
    return Code(pointer(index), pointer(value), pointer(projection), pointer(count), *index.shape)


def refuse_bad_index(status: int, index: Tensor, count: Tensor, num_atoms: int) -> None:
    """Raises ``ValueError`` if the library met an atom that does not exist."""
    if status == BAD_INDEX:
        check_code(index, count, num_atoms)
