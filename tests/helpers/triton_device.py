"""Runs the Triton backend in tests: on a GPU, or on the CPU in a process with TRITON_INTERPRET=1."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroae.kernels import is_interpreting, load_backend

ON_GPU = not is_interpreting()
MARKS = (
    [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; test_triton_interpreter.py needs none"),
    ]
    if ON_GPU
    else []
)


def examples(interpreted: int) -> int:
    """Returns how many drawn examples a test runs: on a GPU 150, or as many as NEUROAE_GPU_EXAMPLES says."""
    return int(os.environ.get("NEUROAE_GPU_EXAMPLES", "150")) if ON_GPU else interpreted


def run(operation: str, *arguments: Any) -> Any:
    """Runs an operation on the backend's device, with tensors from the CPU, and returns the results to the CPU."""
    results = getattr(load_backend("triton"), operation)(*(to_device(value, "cuda") for value in arguments))
    if isinstance(results, Tensor):
        return to_device(results, "cpu")
    return tuple(to_device(result, "cpu") for result in results)


def to_device(value: Any, device: str) -> Any:
    return value.to(device) if ON_GPU and isinstance(value, Tensor) else value
