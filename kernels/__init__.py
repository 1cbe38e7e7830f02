"""The operations, one folder an engine, and the choice between the engines.

An engine is a module with the functions of ``reference.py``, by the same names and with the same arguments. It
belongs to one kind of device:

- ``reference``: plain PyTorch, any device.
- ``cpu``: C++, built by CMakeLists.txt; tensors on the CPU.
- ``triton``: CUDA and ROCm; under Triton's interpreter (``TRITON_INTERPRET=1``) tensors on the CPU.
"""

import functools
import importlib.util
import os
import warnings
from types import ModuleType

from . import reference

OPERATIONS = (
    "select",
    "draw",
    "encode",
    "encode_backward",
    "selection_backward",
    "conv_transpose",
    "conv_transpose_backward_value",
    "conv_transpose_backward_weight",
    "dense_conv_transpose",
    "dense_conv_transpose_backward_input",
    "dense_conv_transpose_backward_weight",
)


class EngineMissing(RuntimeError):
    """An engine cannot run here; the message says why, in one line."""


def load_engine(name: str) -> ModuleType:
    """The engine of that name, or ``EngineMissing``."""
    if name == "reference":
        return reference
    if name == "cpu":
        from . import cpu

        cpu.library()
        return cpu
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            raise EngineMissing("the triton engine needs the triton package, which is not installed")
        from . import triton

        return triton
    raise ValueError(f"backend is {name!r}, expected auto, reference, cpu or triton")


def require_driver() -> None:
    """Raises ``EngineMissing`` where Triton cannot launch kernels, as without the C compiler that makes its driver."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise EngineMissing(f"Triton cannot run kernels here: {reason}") from error


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU, in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def engine_name(device_type: str) -> str:
    """The engine that serves tensors of a device. Falling back to the reference is said once, in one line."""
    preferred = {"cpu": "triton" if interpreting() else "cpu", "cuda": "triton"}.get(device_type, "reference")
    try:
        load_engine(preferred)
        if device_type == "cuda":
            require_driver()
    except EngineMissing as reason:
        warnings.warn(f"neuroae runs on its reference engine (slower): {reason}", stacklevel=2)
        return "reference"
    return preferred
