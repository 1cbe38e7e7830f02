"""Where the Triton backend's tests run: on a GPU, or on the CPU in a process with TRITON_INTERPRET=1."""

from typing import Any

import pytest
import torch
from torch import Tensor

from neuroae.kernels import interpreting, load_backend

ON_GPU = not interpreting()
MARKS = (
    [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; test_triton_interpreter.py needs none"),
    ]
    if ON_GPU
    else []
)


def run(operation: str, *arguments: Any) -> Any:
    """An operation of the backend, on its device; the tensors come from the CPU and go back there."""
    results = getattr(load_backend("triton"), operation)(*(moved(value, "cuda") for value in arguments))
    if isinstance(results, Tensor):
        return moved(results, "cpu")
    return tuple(moved(result, "cpu") for result in results)


def moved(value: Any, device: str) -> Any:
    return value.to(device) if ON_GPU and isinstance(value, Tensor) else value
