"""Checks on the values of a code, which no kernel could survive being wrong."""

import torch
from torch import Tensor

from ..shapes import require


def check_index(index: Tensor, atoms: int) -> None:
    """Refuses atoms that do not exist. Reads the values, so it is skipped while a CUDA graph is captured."""
    if index.numel() == 0 or (index.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    highest = int(index.max())
    require(highest < atoms, f"index names atom {highest}, expected -1 to {atoms - 1}")
