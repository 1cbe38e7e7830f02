"""Philox4x32-10 in plain PyTorch (Salmon et al., SC 2011): the random numbers behind all dropout masks.

Words are unsigned 32-bit numbers in int64 tensors. A product of two words can overflow int64, but its bit pattern is
that of the unsigned 64-bit product, so shifts and masks give both halves exactly.
"""

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> Tensor:
    """Returns four random words for each counter.

    Args:
        counter: Four broadcastable int64 tensors with values in [0, 2^32).
        key: Two int64 tensors (usually scalars) with values in [0, 2^32).

    Returns:
        An int64 tensor of the broadcast shape with a last dimension of 4, values in [0, 2^32).
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
    """Returns low and high word of a 64-bit seed, an int64 tensor of one element in two's complement."""
    seed = seed.reshape(())
    return seed & MASK, (seed >> 32) & MASK


def drop_threshold(dropout_p: float) -> int:
    """Returns floor(p * 2^32) from the double p. A coefficient is dropped when its word is below this."""
    return int(dropout_p * 2**32)
