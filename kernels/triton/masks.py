"""Masks that a scalar has a say in."""

import triton
import triton.language as tl


@triton.jit
def only_if(condition, mask):
    """The mask where the scalar condition holds, and nothing elsewhere.

    ``condition & mask`` is the same to a GPU, but what Triton's interpreter makes of it is no mask to its loads (3.9).
    """
    return tl.where(condition, mask, False)
