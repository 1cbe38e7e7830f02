"""Settings that hold for the length of a ``with`` block."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import nn

from ..kernels.float32 import full_float32
from .devices import has_fast_bfloat16

Precision = Literal["float32", "bfloat16"]
PRECISIONS = get_args(Precision)
CPU = torch.device("cpu")
SLOW_BFLOAT16 = (
    "precision is 'bfloat16' on a device without instructions for it (AVX-512 or Arm's BF16, NVIDIA's GPUs since "
    "Ampere), where PyTorch is slower in it than in 'float32', on a processor many times"
)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Decoder and classifier in bfloat16, or everything in float32. The encoder computes in float32 either way."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not has_fast_bfloat16(device):
        warnings.warn(SLOW_BFLOAT16, stacklevel=2)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes in, where it is on for tensors of this device; those without memory have none."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


@contextmanager
def repeatable() -> Iterator[None]:
    """Results that a run on the same machine repeats: float32 is float32, and cuDNN takes the same algorithms."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with full_float32():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def float32_by_default() -> Iterator[None]:
    """What is made without a dtype is float32, whatever ``torch.set_default_dtype`` said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of the module asks for gradients, so that a backward pass goes to its input alone."""
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def drawing_from(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """What torch's generators of the CPU and of this device give follows from the seed; afterwards they are as before.

    Those of other devices, which ``torch.manual_seed`` would set as well, are left alone.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for generator in generators:
            generator.manual_seed(seed)
        yield
