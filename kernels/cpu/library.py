"""The compiled library: where it is, what its functions take, and why it is missing if it is."""

import ctypes
import functools
import hashlib
import os
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from .. import EngineMissing
from .structures import (
    STRUCTURES,
    Code,
    Dictionary,
    Draws,
    Filters,
    Gradient,
    Images,
    Layer,
    Maps,
    Membership,
    Selection,
)

FOLDER = Path(__file__).parent
LIBRARY_NAME = "libneuroae_cpu.so"
BUILD_ERROR = FOLDER / "build-error.txt"
OTHER_VERSION = "the C++ engine at {} is of another version: build the package again"
BAD_INDEX, NO_MEMORY, FORKED = 2, 3, 4  # kBadIndex, kNoMemory and kForked of engine.h
INSTRUCTION_SETS = ("plain", "avx2", "avx512", "avx512_bf16")

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
    """``NEUROAE_CPU_LIBRARY`` if set (a sanitized build, say), else the one built with the package."""
    return Path(os.environ.get("NEUROAE_CPU_LIBRARY") or FOLDER / LIBRARY_NAME)


@functools.cache
def digest() -> str:
    """SHA-256 sum of the library's file, in hexadecimal, as it was when the library was loaded."""
    return hashlib.sha256(library_path().read_bytes()).hexdigest()


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library with its functions declared, or ``EngineMissing`` with the reason.

    ``NEUROAE_CPU_ISA`` lowers its instruction set, to ``plain`` where the processor lacks the one that it names.
    """
    asked = os.environ.get("NEUROAE_CPU_ISA")
    if asked and asked not in INSTRUCTION_SETS:
        raise ValueError(f"NEUROAE_CPU_ISA is {asked!r}, expected one of {', '.join(INSTRUCTION_SETS)}")
    path = library_path()
    if not path.exists():
        ours = path == FOLDER / LIBRARY_NAME and BUILD_ERROR.exists()
        reason = BUILD_ERROR.read_text().strip() if ours else f"there is no {path.name} at {path.parent}"
        raise EngineMissing(f"the C++ engine is missing: {reason}")
    try:
        loaded = ctypes.CDLL(str(path))
        for name, arguments in ARGUMENTS.items():
            function = getattr(loaded, f"neuroae_{name}")
            function.argtypes = arguments
            function.restype = c_int32
        loaded.neuroae_isa.restype = loaded.neuroae_sources.restype = c_char_p
        loaded.neuroae_structure_sizes.restype = POINTER(c_int64)
    except OSError as error:
        raise EngineMissing(f"the C++ engine does not load: {error}") from error
    except AttributeError as error:  # a function is not there
        raise EngineMissing(OTHER_VERSION.format(path)) from error
    if not same_structures(loaded) or sources() not in (None, loaded.neuroae_sources().decode()):
        raise EngineMissing(OTHER_VERSION.format(path))
    digest()
    return loaded


def same_structures(loaded: ctypes.CDLL) -> bool:
    sizes = loaded.neuroae_structure_sizes()
    expected = [ctypes.sizeof(structure) for structure in STRUCTURES]
    return bool(sizes[0] == len(expected) and sizes[1 : 1 + len(expected)] == expected)


def sources() -> str | None:
    """A digest of the sources beside the package, as CMakeLists.txt makes it; None where there are none (a wheel)."""
    files = sorted(file for ending in ("cpp", "h") for file in FOLDER.glob(f"src/*.{ending}"))
    digests = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest() if files else None


def instruction_set() -> str:
    """What the engine runs on here: avx512_bf16, avx512, avx2 or plain."""
    name: bytes = library().neuroae_isa()
    return name.decode()
