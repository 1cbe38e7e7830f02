"""Random dictionaries."""

import torch
from torch import Tensor


def unit_atoms(count: int, channels: int, patch: int) -> Tensor:
    """Returns random atoms (count, channels, patch, patch) of unit l2 norm."""
    atoms = torch.randn(count, channels, patch, patch)
    return atoms / atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
