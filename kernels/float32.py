"""Float32 that is float32, whatever the settings of the process allow in its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, no library computes float32 products or convolutions in TF32 or bfloat16; afterwards all is as before.

    Asked of each operation by itself, since torch refuses to read its older, common switches once these were used.
    """
    on: Any = torch.backends  # its modules are made as it is imported, which a type checker cannot see
    operations = (on.cudnn.conv, on.cudnn.rnn, on.cuda.matmul, on.mkldnn.conv, on.mkldnn.rnn, on.mkldnn.matmul)
    changed = [(operation, operation.fp32_precision) for operation in operations]
    changed = [(operation, before) for operation, before in changed if before not in EXACT]
    for operation, _ in changed:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        for operation, before in changed:
            operation.fp32_precision = before
