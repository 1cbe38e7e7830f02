"""Random numbers that belong to an image: they depend on the seed and the image's id, not on the batch around it."""

import hashlib
import operator
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from ..kernels.philox import philox4x32, split_seed

SEED_LIMIT = 2**63


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed in [0, 2^63) for one purpose at one position (epoch, attack, restart, step, ...).

    Different purposes or positions give unrelated streams; the same ones give the same seed in every process.
    """
    check_seed(seed)
    text = ":".join((str(int(seed)), purpose, *(str(int(number)) for number in position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") % SEED_LIMIT


def check_seed(seed: SupportsIndex) -> None:
    """Refuses what is not an integer; those of numpy and of tensors are."""
    try:
        operator.index(seed)
    except TypeError:
        raise TypeError(f"seed is a {type(seed).__name__}, expected an int") from None
    if isinstance(seed, bool):
        raise TypeError("seed is a bool, expected an int")


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """An int64 scalar on the device; ``None`` takes one from torch's generator (``torch.manual_seed`` governs it)."""
    if seed is None:
        return torch.randint(SEED_LIMIT - 1, (), dtype=torch.int64, device=device)
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise TypeError(f"seed is a tensor of {seed.numel()} x {seed.dtype}, expected one torch.int64")
        return seed.to(device).reshape(())
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed is a {type(seed).__name__}, expected an int, an int64 tensor or None")
    if not -SEED_LIMIT <= seed < SEED_LIMIT:
        raise ValueError(f"seed is {seed}, expected in [-2^63, 2^63)")
    return torch.full((), seed, dtype=torch.int64, device=device)


def image_id_tensor(image_ids: Tensor | None, batch: int, device: torch.device) -> Tensor:
    """Int64 ids on the device, one an image; ``None`` numbers the batch from 0."""
    if image_ids is None:
        return torch.arange(batch, device=device)
    if not isinstance(image_ids, Tensor) or image_ids.dtype != torch.int64:
        kind = image_ids.dtype if isinstance(image_ids, Tensor) else type(image_ids).__name__
        raise TypeError(f"image_ids is {kind}, expected an int64 tensor or None")
    if image_ids.shape != (batch,):
        raise ValueError(f"image_ids has shape {tuple(image_ids.shape)}, expected ({batch},), an id for each image")
    return image_ids.to(device)


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
