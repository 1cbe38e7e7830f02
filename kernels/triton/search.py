"""The top T of each patch, for kernels: a search for the T-th magnitude, without sorting or moving projections.

A warp holds whole patches, so that no step waits for another warp, and each of its 32 lanes holds W consecutive atoms.
So projections are (patches of a warp, W, warps, LANES), which Triton lays out in this way: lanes along the last
dimension, warps along the one before, and the others in registers. A number for each patch is (patches of a warp, 1,
warps, 1).

A step counts the magnitudes that reach a candidate, which the counts so far suggest. Non-negative floats are ordered
like their bit patterns as integers. When all but one of the T largest magnitudes reach the upper end of the search,
the last is the nearest one below it, and likewise for one too many at the lower end. Ties go to the lower atoms.
"""

import triton
import triton.language as tl

LANES = tl.constexpr(32)
WARP_PATCHES = tl.constexpr(4)
# Steps of the search: of all programs, of those where a patch needs more, and of a bisection, which always ends.
STEPS = tl.constexpr(8)
MORE_STEPS = tl.constexpr(4)
BISECTION_STEPS = tl.constexpr(31)
INFINITY = tl.constexpr(0x7F800000)
# As bits, the exponent of 2^23: the lowest bits of a float from there on count in ones.
EXPONENT = tl.constexpr(0x4B000000)


@triton.jit
def as_bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def as_float(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def lane_atoms(ATOM_TILE: tl.constexpr):
    """Returns the atoms of the lanes, (1, W, 1, LANES)."""
    W: tl.constexpr = ATOM_TILE // LANES
    return tl.arange(0, W)[None, :, None, None] + tl.arange(0, LANES)[None, None, None, :] * W


@triton.jit
def lane_patches(PATCH_TILE: tl.constexpr):
    """Returns the places of the warps' patches in the tile, a number for each patch."""
    WARPS: tl.constexpr = PATCH_TILE // WARP_PATCHES
    return tl.arange(0, WARP_PATCHES)[:, None, None, None] + tl.arange(0, WARPS)[None, None, :, None] * WARP_PATCHES


@triton.jit
def row_sum(x):
    """Returns the sum over the atoms of each patch."""
    return tl.sum(tl.sum(x, axis=1, keep_dims=True), axis=3, keep_dims=True)


@triton.jit
def lane_reach(a, middle):
    """Returns how many magnitudes of each lane reach ``middle``; NaN reaches all numbers.

    The count is a float before it ends, since a GPU has more adders for floats.
    """
    count = tl.sum(tl.where(tl.abs(a) < middle, 0.0, 1.0), axis=1, keep_dims=True)
    return as_bits(count + 8388608.0) & 0xFFFF


@triton.jit
def row_reach(a, middle):
    """Returns how many magnitudes of each patch reach ``middle``, which is positive, as float32."""
    return as_float(tl.sum(lane_reach(a, middle), axis=3, keep_dims=True) | EXPONENT) - 8388608.0


@triton.jit
def any_patch(condition):
    """Returns whether a condition holds for any patch of the program."""
    return tl.max(tl.ravel(condition.to(tl.int32)), axis=0) > 0


@triton.jit
def narrow(a, middle, low, high, reach_low, reach_high, TOP_T: tl.constexpr):
    """Returns the next ends of the search. At least T magnitudes reach the lower one, fewer reach the upper one."""
    reach = row_reach(a, as_float(middle))
    enough = reach >= TOP_T
    low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return low, high, tl.where(enough, reach, reach_low), tl.where(enough, reach_high, reach)


@triton.jit
def candidate(low, high, reach_low, reach_high, TOP_T: tl.constexpr):
    """Returns where the T-th magnitude is if those between the ends are evenly spread."""
    root = tl.rsqrt(reach_low - reach_high + 1.0)
    share = (reach_low - (TOP_T - 0.5)) * root * root
    least, most = as_float(low), as_float(high)
    return tl.minimum(as_bits(least + (most - least) * share), high - 1)


@triton.jit
def is_open(low, high, reach_low, reach_high, TOP_T: tl.constexpr):
    """Returns whether any patch needs more steps."""
    return any_patch((reach_high < TOP_T - 1) & (reach_low > TOP_T + 1) & (high - low > 1))


@triton.jit
def search(a, ATOMS: tl.constexpr, TOP_T: tl.constexpr, FIRST: tl.constexpr):
    """Returns the ends of the search, and how many magnitudes reach them, numbers for each patch.

    Args:
        FIRST: The first candidate lies between the mean magnitude (0) and the greatest (1).
    """
    mean = row_sum(tl.abs(a)) / ATOMS
    most = tl.max(as_bits(tl.max(tl.abs(a), axis=1, keep_dims=True)), axis=3, keep_dims=True)
    most = tl.where(mean < float("inf"), most, INFINITY)
    low, high = tl.zeros_like(most), most + 1
    reach_low, reach_high = tl.full(most.shape, ATOMS, tl.float32), tl.zeros(most.shape, tl.float32)
    middle = tl.minimum(tl.maximum(as_bits(mean + (as_float(most) - mean) * FIRST), 1), most)
    for _ in range(0, STEPS):
        low, high, reach_low, reach_high = narrow(a, middle, low, high, reach_low, reach_high, TOP_T)
        middle = candidate(low, high, reach_low, reach_high, TOP_T)
    if is_open(low, high, reach_low, reach_high, TOP_T):
        for _ in range(0, MORE_STEPS):
            low, high, reach_low, reach_high = narrow(a, middle, low, high, reach_low, reach_high, TOP_T)
            middle = candidate(low, high, reach_low, reach_high, TOP_T)
        if is_open(low, high, reach_low, reach_high, TOP_T):
            for _ in range(0, BISECTION_STEPS):
                middle = tl.maximum(low + ((high - low) >> 1), 1)
                low, high, reach_low, reach_high = narrow(a, middle, low, high, reach_low, reach_high, TOP_T)
    return low, high, reach_low, reach_high


@triton.jit
def cut_between(a, atom, low, high, reach_low, reach_high, ATOMS: tl.constexpr, TOP_T: tl.constexpr):
    """Returns the least bits that the T largest magnitudes reach, and no others but for ties, for each patch.

    If T magnitudes reach the lower end, it is this end. If one more does, it is above the nearest magnitude, the least
    of them. If one fewer reaches the upper end, it is the nearest magnitude. As unsigned numbers, distances on the
    other side of an end are greater. Twice the distance is found, since twice the bits are without the sign.

    The zeros beyond the last atom are last among the ties. Only where almost all atoms are selected, so that the lower
    end is 0, could they be the nearest magnitude.
    """
    twice = as_bits(a) << 1
    if TOP_T >= ATOMS - 1:
        twice = tl.where(atom < ATOMS, twice, -1)
    is_below = reach_high == TOP_T - 1
    distance = (twice * tl.where(is_below, -1, 1) + 2 * tl.where(is_below, high - 1, -low)).to(tl.uint32, bitcast=True)
    nearest = as_bits(tl.min(tl.min(distance, axis=1, keep_dims=True), axis=3, keep_dims=True) >> 1)
    cut = tl.where(is_below, high - 1 - nearest, tl.where(reach_low == TOP_T + 1, low + nearest + 1, low))
    return tl.where(reach_low == TOP_T, low, cut)


@triton.jit
def find_cut(a, atom, ATOMS: tl.constexpr, TOP_T: tl.constexpr, FIRST: tl.constexpr):
    """Returns a cut for each patch, as bits, and how many magnitudes of each lane reach it: T in all without ties."""
    low, high, reach_low, reach_high = search(a, ATOMS, TOP_T, FIRST)
    cut = cut_between(a, atom, low, high, reach_low, reach_high, ATOMS, TOP_T)
    return cut, lane_reach(a, as_float(cut))


@triton.jit
def middle_cut(a, lane_number, cut, TOP_T: tl.constexpr):
    """Returns the number halfway between the T-th magnitude and the next one, for fewer than all atoms.

    Both are at the cut or just below it where other than T magnitudes reach it, else the nearest on either side of it.
    """
    number = tl.sum(lane_number, axis=3, keep_dims=True)
    twice = as_bits(a) << 1
    above = (twice - 2 * cut).to(tl.uint32, bitcast=True)
    below = (2 * (cut - 1) - twice).to(tl.uint32, bitcast=True)
    above = as_bits(tl.min(tl.min(above, axis=1, keep_dims=True), axis=3, keep_dims=True) >> 1)
    below = as_bits(tl.min(tl.min(below, axis=1, keep_dims=True), axis=3, keep_dims=True) >> 1)
    least = tl.where(number < TOP_T, cut - 1, cut + above)
    following = tl.where(number == TOP_T, cut - 1 - below, least)
    return 0.5 * as_float(least) + 0.5 * as_float(following)


@triton.jit
def has_ties(lane_number, live, TOP_T: tl.constexpr):
    """Returns whether other than T magnitudes reach the cut of any patch that ``live`` marks."""
    return any_patch(live & (tl.sum(lane_number, axis=3, keep_dims=True) != TOP_T))


@triton.jit
def place_ties(a, atom, lane_number, cut, TOP_T: tl.constexpr):
    """Returns cuts that T or more magnitudes reach, and the last atom that is selected of those equal to the cut."""
    cut = tl.where(tl.sum(lane_number, axis=3, keep_dims=True) < TOP_T, cut - 1, cut)
    places = TOP_T - row_reach(a, as_float(cut + 1))
    low, high = tl.full(cut.shape, -1, tl.int32), tl.full(cut.shape, a.shape[1] * a.shape[3], tl.int32)
    for _ in range(0, 17):
        middle = (low + high) >> 1
        is_placed = (tl.abs(a) == as_float(cut)) & (atom <= middle)
        enough = row_sum(tl.where(is_placed, 1.0, 0.0)) >= places
        low, high = tl.where(enough, low, middle), tl.where(enough, middle, high)
    return cut, high


@triton.jit
def only_live(cut, live):
    """Returns the cuts, and one that no magnitude reaches where ``live`` is False."""
    return tl.where(live, cut, INFINITY + 1)


@triton.jit
def selected(a, atom, cut, last, TIES: tl.constexpr):
    """Returns 1 for the magnitudes that reach the cut, and 0 for others.

    These are signs of differences with the number before the cut: LLVM would pack the bits of comparisons. With TIES,
    the magnitudes that equal the cut are selected up to atom ``last``.
    """
    before = tl.where(cut > 0, as_float(cut - 1), -1.0)
    number = ((before - tl.abs(a)).to(tl.uint32, bitcast=True) >> 31).to(tl.int32)
    if TIES:
        number = tl.where((tl.abs(a) == as_float(cut)) & (atom > last), 0, number)
    return number


@triton.jit
def patch_halves(x):
    """Returns the first and the second half of each warp's patches."""
    shape: tl.constexpr = (2, x.shape[0] // 2, x.shape[1], x.shape[2], x.shape[3])
    return tl.split(tl.permute(tl.reshape(x, shape), (1, 2, 3, 4, 0)))


@triton.jit
def atom_halves(x):
    """Returns the first and the second half of each lane's atoms."""
    shape: tl.constexpr = (x.shape[0], 2, x.shape[1] // 2, x.shape[2], x.shape[3])
    return tl.split(tl.permute(tl.reshape(x, shape), (0, 2, 3, 4, 1)))


@triton.jit
def slots(number, lane_number, first):
    """Returns the slots of each patch's ones, in the order of the atoms, from ``first`` on.

    Args:
        number: Zeros and ones.
        lane_number: The number of ones of each lane.
    """
    before = first + tl.cumsum(lane_number, axis=3) - lane_number - 1
    is_first = tl.arange(0, number.shape[1])[None, :, None, None] == 0
    return tl.cumsum(number + tl.where(is_first, before, 0), axis=1)
