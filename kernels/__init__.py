"""The operations of the defense, the backends that compute them, and the choice between the backends."""

import warnings
from typing import TYPE_CHECKING, Any

from .backends import backend_name, is_interpreting, load_backend, require_driver
from .errors import BackendMissing
from .ops import OPERATIONS
from .registration import namespace

__all__ = [
    "OPERATIONS",
    "BackendMissing",
    "backend_name",
    "is_interpreting",
    "load_backend",
    "namespace",
    "require_driver",
]

RENAMED = {"EngineMissing": "BackendMissing", "engine_name": "backend_name", "load_engine": "load_backend"}

if not TYPE_CHECKING:  # a type checker would take every name for one of this module

    def __getattr__(name: str) -> Any:
        """Returns the object that had this name in version 0.1, with a ``DeprecationWarning``."""
        if name not in RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        new = RENAMED[name]
        warnings.warn(f"{__name__}.{name} is now {new}; the old name will go", DeprecationWarning, stacklevel=2)
        return globals()[new]
