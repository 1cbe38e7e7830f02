"""Exact top T of each row by bisection on the bits of the magnitudes.

Non-negative floats are ordered as their bit patterns read as integers are. So a threshold is found by counting how
many magnitudes reach a candidate, at most 31 times, without sorting or moving anything. Ties at the threshold go to
the lower atoms by a running count.
"""

import triton
import triton.language as tl


@triton.jit
def magnitudes(projection, valid):
    """Bits of |projection|, NaN taken as infinity; -1, below every magnitude, where not valid."""
    bits = projection.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return tl.where(valid, tl.minimum(bits, 0x7F800000), -1)


@triton.jit
def row_count(mask):
    """True entries of each row, (rows, 1)."""
    return tl.sum(mask.to(tl.int32), axis=1, keep_dims=True)


@triton.jit
def row_reach(bits, middle):
    """Entries of each row that reach ``middle``, (rows, 1), by the sign of the difference, which does not overflow.

    Counting a comparison comes out of LLVM as a population count of bits that it packs on the stack.
    """
    return tl.sum((bits - middle) >> 31, axis=1, keep_dims=True) + bits.shape[1]


@triton.jit
def widest_interval(ROWS: tl.constexpr):
    """(low, high) before the search: T magnitudes or more reach low, fewer reach high."""
    return tl.zeros((ROWS, 1), tl.int32), tl.full((ROWS, 1), 0x7F800001, tl.int32)


@triton.jit
def midpoint(low, high):
    return low + ((high - low) >> 1)


@triton.jit
def narrow(low, high, middle, reached, TOP_T: tl.constexpr):
    """The next interval, when ``reached`` magnitudes reach ``middle``; of width 1 once it is exactly T."""
    next_low = tl.where(reached >= TOP_T, middle, low)
    next_high = tl.where(reached > TOP_T, high, tl.where(reached == TOP_T, middle + 1, middle))
    return next_low, next_high


@triton.jit
def threshold(bits, TOP_T: tl.constexpr):
    """The largest number that T magnitudes or more reach, or any number that exactly T reach, (rows, 1)."""
    low, high = widest_interval(bits.shape[0])
    while tl.max(high - low) > 1:
        middle = midpoint(low, high)
        low, high = narrow(low, high, middle, row_reach(bits, middle), TOP_T)
    return low


@triton.jit
def chosen(bits, cut, places):
    """Entries above the threshold, and the leftmost ``places`` of those at it."""
    tied = bits == cut
    return (bits > cut) | (tied & (tl.cumsum(tied.to(tl.int32), axis=1) <= places))


@triton.jit
def top_t(projection, valid, TOP_T: tl.constexpr):
    """Which T entries of each row are largest in magnitude, ties going to the left; at least T must be valid."""
    bits = magnitudes(projection, valid)
    cut = threshold(bits, TOP_T)
    return chosen(bits, cut, TOP_T - row_count(bits > cut))
