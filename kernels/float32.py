"""Float32 that is float32, whatever the settings of the process allow in its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")
HIGHEST = "highest"


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, no library computes float32 products or convolutions in TF32 or bfloat16; afterwards all is as before.

    PyTorch has two interfaces for this. The older switches come first: a model may read them, which is an error where
    the newer ones say something else. These then see to what is left.
    """
    with older_switches_off(), operations_exact():
        yield


@contextmanager
def older_switches_off() -> Iterator[None]:
    try:
        convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the newer interface, after which the older cannot be read
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
def operations_exact() -> Iterator[None]:
    on: Any = torch.backends  # its modules are made as it is imported, which a type checker cannot see
    operations = (on.cudnn.conv, on.cudnn.rnn, on.cuda.matmul, on.mkldnn.conv, on.mkldnn.rnn, on.mkldnn.matmul)
    rounded = [(operation, operation.fp32_precision) for operation in operations]
    rounded = [(operation, before) for operation, before in rounded if before not in EXACT]
    for operation, _ in rounded:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        for operation, before in rounded:
            # What an operation inherits it goes on inheriting.
            operation.fp32_precision = "none"
            if operation.fp32_precision != before:
                operation.fp32_precision = before
