"""Seeds by purpose, and random numbers by image, which depend on the seed and the image's id, not on its batch."""

import hashlib
import math
import operator
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from ..kernels.philox import philox4x32, split_seed

SEED_LIMIT = 2**63


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """Returns a seed in [0, 2^63) for one purpose at one position.

    Different purposes or positions give unrelated streams; the same ones give the same seed in every process.

    Args:
        seed: The user's seed.
        purpose: What the draws are for, such as "training" or "scoring".
        *position: The numbers of epoch, attack, restart, step and so on, at which the draws are made.

    Raises:
        TypeError: The seed is not an integer.
    """
    check_seed(seed)
    text = ":".join((str(int(seed)), purpose, *(str(int(number)) for number in position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") % SEED_LIMIT


def check_seed(seed: SupportsIndex) -> None:
    """Refuses a seed that is not an integer; integers of numpy and of tensors are accepted.

    Raises:
        TypeError: The seed has another type, or is a bool.
    """
    try:
        operator.index(seed)
    except TypeError:
        raise TypeError(f"seed is a {type(seed).__name__}, expected an int") from None
    if isinstance(seed, bool):
        raise TypeError("seed is a bool, expected an int")


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """Returns the seed as an int64 scalar on the device.

    Args:
        seed: An int in [-2^63, 2^63) or one int64 in a tensor. None draws a seed from torch's generator, which
            ``torch.manual_seed`` governs.
        device: The device of the result.

    Raises:
        TypeError: The seed has another type.
        ValueError: The seed is out of range.
    """
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
    """Returns the image ids as (batch,) int64 on the device.

    Args:
        image_ids: (batch,) int64, or None to number the images from 0.
        batch: The number of images.
        device: The device of the result.

    Raises:
        TypeError: The ids are not an int64 tensor.
        ValueError: Their shape is not (batch,).
    """
    if image_ids is None:
        return torch.arange(batch, device=device)
    if not isinstance(image_ids, Tensor) or image_ids.dtype != torch.int64:
        kind = image_ids.dtype if isinstance(image_ids, Tensor) else type(image_ids).__name__
        raise TypeError(f"image_ids is {kind}, expected an int64 tensor or None")
    if image_ids.shape != (batch,):
        raise ValueError(f"image_ids has shape {tuple(image_ids.shape)}, expected ({batch},), an id for each image")
    return image_ids.to(device)


def random_uniform(seed: int, image_ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns uniform random numbers for each image, (B, *shape) float32 in [0, 1)."""
    words = random_words(seed, image_ids, math.prod(shape))
    return ((words >> 8).float() * 2**-24).unflatten(1, shape)


def random_words(seed: int, image_ids: Tensor, count: int) -> Tensor:
    """Returns uniform random integers for each image, (B, count) int64 in [0, 2^32).

    Args:
        seed: A seed of 64 bits.
        image_ids: (B,) int64 in [0, 2^32).
        count: The number of integers for each image.
    """
    device = image_ids.device
    blocks = torch.arange((count + 3) // 4, device=device)
    zero = blocks.new_zeros(())
    key = split_seed(torch.full((), seed, dtype=torch.int64, device=device))
    words = philox4x32((blocks, zero, zero, image_ids[:, None]), key)
    return words.flatten(1)[:, :count]
