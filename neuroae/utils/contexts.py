"""Settings that hold for the length of a ``with`` block: precision, determinism, default dtype, gradients, seeds."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..kernels.float32 import full_float32
from .devices import has_fast_bfloat16
from .randomness import derive_seed

Precision = Literal["float32", "bfloat16"]
PRECISIONS = get_args(Precision)
CPU = torch.device("cpu")
SLOW_BFLOAT16 = (
    "precision is 'bfloat16', but this device has no instructions for it (AVX-512 or Arm's BF16 on processors, Ampere "
    "or later on NVIDIA's GPUs): PyTorch is slower than in 'float32', on processors many times"
)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns a context in which decoder and classifier compute in this precision.

    The encoder always computes in float32. A warning is given on a device where bfloat16 is slow.

    Args:
        precision: "float32" or "bfloat16".
        device: The device that the model computes on.

    Raises:
        ValueError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not has_fast_bfloat16(device):
        warnings.warn(SLOW_BFLOAT16, stacklevel=2)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Returns the dtype in which autocast computes on this device; None if autocast is off, and on "meta"."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


@contextmanager
def repeatable() -> Iterator[None]:
    """Makes results repeatable on one machine: float32 without TF32, and the same cuDNN algorithms every time."""
    cudnn = torch.backends.cudnn
    previous = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with full_float32():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = previous


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Lets cuDNN try out its algorithms for every new shape, which pays where shapes repeat. Rounding may differ."""
    cudnn = torch.backends.cudnn
    previous, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = previous


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Makes float32 the default dtype of new tensors, whatever ``torch.set_default_dtype`` has set."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Turns gradients off for the module's parameters, so that a backward pass goes to its input only."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def drawing_from(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seeds torch's generators of the CPU and of this device, and restores their state at the end.

    Generators of other devices, which ``torch.manual_seed`` would seed too, are left alone.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for generator in generators:
            generator.manual_seed(seed)
        yield


def drawing_realization(seed: int | Tensor, number: int, device: torch.device) -> AbstractContextManager[None]:
    """Seeds torch's generators for one realization of a model that may draw from them (see ``drawing_from``).

    A seed in a tensor is for models that draw by it alone. Nothing is seeded then: a CUDA graph would not repeat this
    work of the host.
    """
    if isinstance(seed, Tensor):
        return nullcontext()
    return drawing_from(derive_seed(seed, "realization", number), device)
