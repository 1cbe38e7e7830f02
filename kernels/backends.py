"""The backends and the choice between them.

A backend is a module with the functions of ``OPERATIONS`` (``ops/``), under the same names and with the same
arguments:

- ``reference``: plain PyTorch, any device.
- ``cpu``: C++, built by CMakeLists.txt; tensors on the CPU.
- ``triton``: CUDA and ROCm; tensors on the CPU under Triton's interpreter (``TRITON_INTERPRET=1``).
"""

import functools
import importlib.util
import os
import warnings
from types import ModuleType

from . import reference
from .errors import BackendMissing


@functools.cache
def load_backend(name: str) -> ModuleType:
    """Returns the module of a backend: "reference", "cpu" or "triton".

    Raises:
        BackendMissing: The backend cannot run on this machine.
        ValueError: There is no backend of that name.
    """
    if name == "reference":
        return reference
    if name == "cpu":
        from . import cpu

        cpu.library()
        return cpu
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            raise BackendMissing("the triton backend needs the triton package, which is not installed")
        from . import triton

        return triton
    raise ValueError(f"backend is {name!r}, expected auto, reference, cpu or triton")


def require_driver() -> None:
    """Raises ``BackendMissing`` where Triton cannot launch kernels, for example without a C compiler."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BackendMissing(f"Triton cannot run kernels here: {reason}") from error


def is_interpreting() -> bool:
    """Returns whether Triton kernels run in Triton's interpreter, on the CPU, in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def backend_name(device_type: str) -> str:
    """Returns the name of the backend for a kind of device, such as "cpu" or "cuda".

    Where the device's own backend is missing, this is "reference", and a warning gives the reason once.
    """
    preferred = {"cpu": "triton" if is_interpreting() else "cpu", "cuda": "triton"}.get(device_type, "reference")
    try:
        load_backend(preferred)
        if device_type == "cuda":
            require_driver()
    except BackendMissing as reason:
        warnings.warn(f"neuroae runs on its reference backend (slower): {reason}", stacklevel=2)
        return "reference"
    return preferred
