"""Settings that hold for the length of a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]
PRECISIONS = get_args(Precision)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Decoder and classifier in bfloat16, or everything in float32. The encoder computes in float32 either way."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


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
