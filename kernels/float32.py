"""A context in which float32 arithmetic is exact float32, whatever the settings of the process allow instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")
HIGHEST = "highest"


@contextmanager
def full_float32() -> Iterator[None]:
    """Keeps libraries from computing float32 products or convolutions in TF32 or bfloat16, and restores the settings.

    PyTorch has two interfaces for this. The older switches are set first: a model may read them, which raises an error
    if the newer settings contradict them. The newer settings then cover what the older ones do not reach.
    """
    with older_switches_off(), newer_settings_exact():
        yield


@contextmanager
def older_switches_off() -> Iterator[None]:
    try:
        convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # once the newer interface was used, the older settings cannot be read
        yield
        return
    if convolutions:
        torch.backends.cudnn.allow_tf32 = False
    if products != HIGHEST:
        torch.set_float32_matmul_precision(HIGHEST)
    try:
        yield
    finally:
        if products != HIGHEST:
            torch.set_float32_matmul_precision(products)
        if convolutions:
            torch.backends.cudnn.allow_tf32 = True


@contextmanager
def newer_settings_exact() -> Iterator[None]:
    on: Any = torch.backends  # creates its modules at import time, which a type checker cannot see
    operations = (on.cudnn.conv, on.cudnn.rnn, on.cuda.matmul, on.mkldnn.conv, on.mkldnn.rnn, on.mkldnn.matmul)
    precisions = [(operation, operation.fp32_precision) for operation in operations]
    inexact = [(operation, precision) for operation, precision in precisions if precision not in EXACT]
    for operation, _ in inexact:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        for operation, precision in inexact:
            # An operation that inherits its precision goes back to inheriting it.
            operation.fp32_precision = "none"
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision
