"""Philox4x32-10 in plain PyTorch (Salmon et al., SC 2011): the draw behind every dropout mask.

All words are unsigned 32-bit numbers held in int64 tensors. Products of two of them wrap in int64, but their bit
pattern is the unsigned 64-bit product, so shifting and masking recovers both halves exactly.
"""

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Four random words for each counter.

    Args:
        counter: four broadcastable int64 tensors with values in [0, 2^32).
        key: two int64 tensors (usually scalars) with values in [0, 2^32).

    Returns:
        int64 tensor of the broadcast shape with a last dimension of 4, values in [0, 2^32).
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        low_product = c0 * MULTIPLIERS[0]
        high_product = c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((high_product >> 32) & MASK) ^ c1 ^ k0,
            high_product & MASK,
            ((low_product >> 32) & MASK) ^ c3 ^ k1,
            low_product & MASK,
        )
        k0 = (k0 + WEYL[0]) & MASK
        k1 = (k1 + WEYL[1]) & MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def split_seed(seed: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high word of a 64-bit seed (an int64 tensor of one element, read as two's complement)."""
    seed = seed.reshape(())
    return seed & MASK, (seed >> 32) & MASK


def drop_threshold(dropout_p: float) -> int:
    """A coefficient is dropped when its word is below this: floor(p * 2^32) from the double p."""
    return int(dropout_p * 2**32)
