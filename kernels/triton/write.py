"""From coefficients to the slots of a compact code: activation/quantization (eq. 3) and stores."""

import triton
import triton.language as tl


@triton.jit
def activate(a, norm, dead_zone, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr):
    """Eq. 3: sign(a) * norm outside the dead zone. Without SIGNED the magnitude is taken first."""
    if not SIGNED:
        a = tl.abs(a)
    if QUANTIZE:
        level = tl.where(a > 0, norm, tl.where(a < 0, -norm, 0.0))
        a = tl.where(tl.abs(a) >= dead_zone, level, 0.0)
    return a


@triton.jit
def next_slots(keep, used):
    """Slots for the kept entries of each row, in order, behind the ``used`` ones of (rows, 1)."""
    return used + tl.cumsum(keep.to(tl.int32), axis=1) - 1


@triton.jit
def halves(x):
    """Even and odd columns."""
    return tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))


@triton.jit
def write_kept(
    index, value, projection, offset, keep, atom, a, norm, dead_zone, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr
):
    """The kept coefficients, each to its slot; ``atom``, ``norm`` and ``dead_zone`` broadcast."""
    tl.store(index + offset, tl.broadcast_to(atom, keep.shape).to(tl.int16), mask=keep)
    tl.store(value + offset, activate(a, norm, dead_zone, QUANTIZE, SIGNED), mask=keep)
    tl.store(projection + offset, a, mask=keep)


@triton.jit
def write_unused(index, value, projection, row, used, live, TOP_T: tl.constexpr, SLOT_TILE: tl.constexpr):
    """-1, 0 and 0 in the slots from ``used`` on; all are (rows, 1), ``row`` the offset of a patch's first slot."""
    for first in range(0, TOP_T, SLOT_TILE):
        slot = first + tl.arange(0, SLOT_TILE)[None, :]
        unused = live & (slot >= used) & (slot < TOP_T)
        offset = row + slot
        zero = tl.zeros(unused.shape, tl.float32)
        tl.store(index + offset, tl.full(unused.shape, -1, tl.int16), mask=unused)
        tl.store(value + offset, zero, mask=unused)
        tl.store(projection + offset, zero, mask=unused)
