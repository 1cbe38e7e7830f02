"""The operations as ``torch.ops.neuroae.*`` and ``torch.ops.neuroae_reference.*``.

``neuroae`` runs an operation with the backend of the tensors' device, CPU or CUDA, and with the reference on all other
devices. ``neuroae_reference`` runs it with the reference on any device. Neither has gradients:
``autograd.py`` and ``layer_autograd.py`` of ``neuroae/nn`` add them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import reference
from .backends import backend_name, load_backend
from .ops import OPERATIONS

Function = Callable[..., Any]


def require_one_device(declaration: Function, function: Function) -> Function:
    """Returns the function preceded by a check that all its tensors are on one device.

    PyTorch chooses one implementation for all tensors. Without the check a backend would follow pointers into another
    device's memory. And one meta tensor among the arguments would make PyTorch run the fake implementation, whose
    outputs are uninitialized.
    """
    names = tuple(inspect.signature(declaration).parameters)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        device = None
        for value in arguments:
            if isinstance(value, Tensor):
                if device is None:
                    device = value.device
                elif value.device != device:
                    named = zip(names, arguments, strict=True)
                    places = ", ".join(f"{name} on {part.device}" for name, part in named if isinstance(part, Tensor))
                    raise ValueError(f"{declaration.__name__} has {places}, expected all tensors on one device")
        return function(*arguments)

    return run


def on_backend(operation: str, device_type: str) -> Function:
    """Returns a function that runs the operation on a device's backend, and loads the backend at the first call."""

    def run(*arguments: Any) -> Any:
        return getattr(load_backend(backend_name(device_type)), operation)(*arguments)

    return run


def register() -> list[torch.library.Library]:
    """Registers all operations. They stay registered as long as the returned libraries exist."""
    libraries = [torch.library.Library(name, "DEF") for name in ("neuroae", "neuroae_reference")]
    for name, declaration in OPERATIONS.items():
        schema = torch.library.infer_schema(declaration, mutates_args=())
        for library in libraries:
            library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
            fallback = require_one_device(declaration, getattr(reference, name))
            library.impl(name, fallback, "CompositeExplicitAutograd")
            fake = require_one_device(declaration, declaration)
            torch.library.register_fake(f"{library.ns}::{name}", fake, lib=library)
        for device_type in ("cpu", "cuda"):
            run = require_one_device(declaration, on_backend(name, device_type))
            libraries[0].impl(name, run, device_type.upper())
    return libraries


LIBRARIES = register()


def namespace(backend: str) -> Any:
    """Returns the operations of an encoder's ``backend``: ``torch.ops.neuroae`` or ``torch.ops.neuroae_reference``."""
    return torch.ops.neuroae_reference if backend == "reference" else torch.ops.neuroae
