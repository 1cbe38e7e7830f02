"""The compiled library: where it is, what its functions take, and why it is missing if it is.

The structures mirror kernels/cpu/src/engine.h, field by field.
"""

import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path

from .. import EngineMissing

FOLDER = Path(__file__).parent
LIBRARY_NAME = "libneuroae_cpu.so"
BUILD_ERROR = FOLDER / "build-error.txt"
BAD_IMAGE, BAD_INDEX = 1, 2


def structure(name: str, **fields: type) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Images = structure(
    "Images",
    pixels=c_void_p,
    count=c_int64,
    channels=c_int64,
    height=c_int64,
    width=c_int64,
    low=c_float,
    high=c_float,
)
Dictionary = structure(
    "Dictionary",
    atoms=c_void_p,
    norms=c_void_p,
    dead_zone=c_void_p,
    count=c_int64,
    channels=c_int64,
    patch=c_int64,
    stride=c_int64,
)
Draws = structure(
    "Draws",
    image_ids=c_void_p,
    seed=c_int64,
    start=c_int64,
    count=c_int64,
    drop_below=c_uint64,
    quantize=c_int32,
    is_signed=c_int32,
)
Selection = structure(
    "Selection",
    atom=c_void_p,
    projection=c_void_p,
    images=c_int64,
    patches_h=c_int64,
    patches_w=c_int64,
    top_t=c_int64,
)
Code = structure(
    "Code",
    index=c_void_p,
    value=c_void_p,
    projection=c_void_p,
    count=c_void_p,
    rows=c_int64,
    patches_h=c_int64,
    patches_w=c_int64,
    top_t=c_int64,
)
Gradient = structure(
    "Gradient",
    images=c_int64,
    height=c_int64,
    width=c_int64,
    surrogate=c_int32,
    quantize=c_int32,
    is_signed=c_int32,
    sigma=c_double,
)
Layer = structure(
    "Layer",
    weight=c_void_p,
    bias=c_void_p,
    dtype=c_int32,
    relu=c_int32,
    atoms=c_int64,
    channels=c_int64,
    kernel_h=c_int64,
    kernel_w=c_int64,
    stride_h=c_int64,
    stride_w=c_int64,
    padding_h=c_int64,
    padding_w=c_int64,
    height=c_int64,
    width=c_int64,
)

ARGUMENTS: dict[str, tuple[type, ...]] = {
    "select": (POINTER(Images), POINTER(Dictionary), POINTER(Selection), c_int32),
    "draw": (POINTER(Selection), POINTER(Dictionary), POINTER(Draws), POINTER(Code), c_int32),
    "encode": (POINTER(Images), POINTER(Dictionary), POINTER(Draws), POINTER(Code), c_int32),
    "encode_backward": (c_void_p, POINTER(Code), POINTER(Dictionary), POINTER(Gradient), c_void_p, c_int32),
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
}


def library_path() -> Path:
    """``NEUROAE_CPU_LIBRARY`` if set (a sanitized build, say), else the one built with the package."""
    return Path(os.environ.get("NEUROAE_CPU_LIBRARY") or FOLDER / LIBRARY_NAME)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library with its functions declared, or ``EngineMissing`` with the reason."""
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
            function.restype = None if name == "draw" else c_int32
        loaded.neuroae_isa.restype = c_char_p
    except (OSError, AttributeError) as error:
        raise EngineMissing(f"the C++ engine does not load: {error}") from error
    return loaded


def instruction_set() -> str:
    """What the engine runs on here: avx512, avx2 or plain."""
    name: bytes = library().neuroae_isa()
    return name.decode()
