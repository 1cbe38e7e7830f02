"""Random numbers that belong to an image: they depend on the seed and the image's id, not on the batch around it."""

import torch
from torch import Tensor

from .kernels.philox import philox4x32, split_seed


def random_words(seed: int, image_ids: Tensor, count: int) -> Tensor:
    """(B, count) int64, uniform in [0, 2^32), from a 64-bit seed and (B,) ids in [0, 2^32)."""
    device = image_ids.device
    blocks = torch.arange((count + 3) // 4, device=device)
    zero = blocks.new_zeros(())
    key = split_seed(torch.full((), seed, dtype=torch.int64, device=device))
    words = philox4x32((blocks, zero, zero, image_ids[:, None]), key)
    return words.flatten(1)[:, :count]


def random_uniform(seed: int, image_ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) float32 in [0, 1)."""
    count = 1
    for size in shape:
        count *= size
    return ((random_words(seed, image_ids, count) >> 8).float() * 2**-24).unflatten(1, shape)
