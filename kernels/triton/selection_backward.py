"""The gradient to the images through membership in the top T (``membership_gradient`` of ``kernels/reference.py``).

There are three kernels. The first finds each patch's cut, and the share that the moving cut takes from each atom's
derivative. The second computes the gradient to each patch's pixels: it goes through the atoms in tiles, projects
again, computes the gradients to the projections in registers, and multiplies them with the atoms. The third adds up
the patches' gradients at the pixels of the images. All sums have a fixed order, which depends on the shapes alone.

For a dictionary that does not fit in registers, the cut comes from a buffer of projections, as in ``select.py``.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import tiles
from .checks import check_images
from .launch import Launch
from .select import buffer_launches, dictionary_constants, load_projections, patch_arguments
from .steps import magnitudes, midpoint, narrow, patch_origins, project, row_reach, threshold, widest_interval

# Limits of a program of the back projection. With more than 128 pixels, MOST_SUMS allows 16 patches.
MOST_PATCHES = 32
MOST_ATOMS = 32
MOST_PIXELS = 256
MOST_SUMS = 4096
# Pixels of a program of the fold.
FOLD_TILE = 512


@triton.jit
def closeness(a, cut, least, exists, scale):
    """Returns s(u) s(-u) for u = (|a| - cut) * scale, s the logistic function; 0 for magnitudes below ``least``.

    The product is the same for u and -u, so it is computed from exp(-|u|), which does not overflow.
    """
    magnitude = tl.abs(a)
    e = tl.exp(-tl.abs(magnitude - cut) * scale)
    return tl.where(exists & (magnitude >= least), e / ((1.0 + e) * (1.0 + e)), 0.0)


@triton.jit
def signs(a):
    return tl.where(a > 0, 1.0, tl.where(a < 0, -1.0, 0.0))


@triton.jit
def membership_derivative(a, norm, grad, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr):
    """Returns the derivative of the loss to each atom's membership: ``grad`` times the value that a member has.

    The sign is a factor instead of a condition, so that NaN stays NaN where a projection is 0.
    """
    value = norm if QUANTIZE else tl.abs(a)
    if SIGNED:
        value *= signs(a)
    return value * grad


@triton.jit
def load_levels(norms, dead_zone, atom, exists, QUANTIZE: tl.constexpr):
    """Loads norms and dead zones. Without quantization both are 0: norms are not used, and all atoms take part."""
    if QUANTIZE:
        return tl.load(norms + atom, mask=exists, other=0.0), tl.load(dead_zone + atom, mask=exists, other=0.0)
    else:
        return tl.zeros(atom.shape, tl.float32), tl.zeros(atom.shape, tl.float32)


@triton.jit
def least_reaching(bits, low):
    """Returns the least magnitude of each row that reaches ``low``, (rows, 1)."""
    return tl.min(tl.where(bits >= low, bits, 0x7FFFFFFF), axis=1, keep_dims=True)


@triton.jit
def greatest_below(bits, low):
    """Returns the greatest magnitude of each row below ``low``, (rows, 1)."""
    return tl.max(tl.where(bits < low, bits, 0), axis=1, keep_dims=True)


@triton.jit
def halfway(least, below, reached, TOP_T: tl.constexpr):
    """Returns the cut between the T-th magnitude, ``least``, and the next one.

    The next one equals ``least`` if more than T magnitudes reach it, else it is ``below``.
    """
    following = tl.where(reached > TOP_T, least, below)
    return 0.5 * least.to(tl.float32, bitcast=True) + 0.5 * following.to(tl.float32, bitcast=True)


@triton.jit
def moving_share(closeness_sum, weighted_sum):
    """Returns the share that the moving cut takes from each atom's derivative; 0 where no atom takes part."""
    return weighted_sum / tl.where(closeness_sum > 0, closeness_sum, 1.0)


@triton.jit(do_not_specialize=["scale", "height", "width", "patches_w", "patches", "total"])
def cut_kernel(
    grad_code,
    images,
    atoms,
    norms,
    dead_zone,
    cuts,
    shares,
    scale: tl.float32,
    height: tl.int32,
    width: tl.int32,
    patches_w: tl.int32,
    patches: tl.int32,
    total: tl.int32,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    TOP_T: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """Finds the cut and the moving share of each patch, (total,) each."""
    first = tl.program_id(0) * PATCH_TILE
    lane = tl.arange(0, PATCH_TILE)[:, None]
    patch = first + lane
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project(images, atoms, origin, live, 0, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE)
    atom = tl.arange(0, ATOM_TILE)[None, :]
    exists = atom < ATOMS
    bits = magnitudes(a, exists)
    low = threshold(bits, TOP_T)
    cut = halfway(least_reaching(bits, low), greatest_below(bits, low), row_reach(bits, low), TOP_T)

    norm, dead = load_levels(norms, dead_zone, atom, exists, QUANTIZE)
    grad = tl.load(grad_code + first.to(tl.int64) * ATOMS + (lane * ATOMS + atom), mask=live & exists, other=0.0)
    close = closeness(a, cut, dead, exists, scale)
    weighted = close * membership_derivative(a, norm, grad, QUANTIZE, SIGNED)
    share = moving_share(tl.sum(close, axis=1, keep_dims=True), tl.sum(weighted, axis=1, keep_dims=True))
    tl.store(cuts + patch, cut, mask=live)
    tl.store(shares + patch, share, mask=live)


@triton.jit(do_not_specialize=["scale", "first", "end"])
def large_cut_kernel(
    grad_code,
    buffer,
    norms,
    dead_zone,
    cuts,
    shares,
    scale: tl.float32,
    first: tl.int32,
    end: tl.int32,
    ATOMS: tl.constexpr,
    TOP_T: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
):
    """Finds the cut and the moving share of patches ``first`` to ``end`` - 1, whose projections are in ``buffer``."""
    place = tl.program_id(0) * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    patch = first + place
    live = patch < end
    row = buffer + place * ATOMS
    column = tl.arange(0, ATOM_TILE)[None, :]

    low, high = widest_interval(PATCH_TILE)
    while tl.max(high - low) > 1:
        middle = midpoint(low, high)
        reached = tl.zeros((PATCH_TILE, 1), tl.int32)
        for first_atom in range(0, ATOMS, ATOM_TILE):
            a, exists = load_projections(row, first_atom + column, live, ATOMS)
            reached += row_reach(magnitudes(a, exists), middle)
        low, high = narrow(low, high, middle, reached, TOP_T)

    least = tl.full((PATCH_TILE, 1), 0x7FFFFFFF, tl.int32)
    below = tl.zeros((PATCH_TILE, 1), tl.int32)
    reached = tl.zeros((PATCH_TILE, 1), tl.int32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        a, exists = load_projections(row, first_atom + column, live, ATOMS)
        bits = magnitudes(a, exists)
        least = tl.minimum(least, least_reaching(bits, low))
        below = tl.maximum(below, greatest_below(bits, low))
        reached += row_reach(bits, low)
    cut = halfway(least, below, reached, TOP_T)

    grad_row = grad_code + patch.to(tl.int64) * ATOMS
    close = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    weighted = tl.zeros((PATCH_TILE, ATOM_TILE), tl.float32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        atom = first_atom + column
        a, exists = load_projections(row, atom, live, ATOMS)
        norm, dead = load_levels(norms, dead_zone, atom, exists, QUANTIZE)
        grad = tl.load(grad_row + atom, mask=live & exists, other=0.0)
        part = closeness(a, cut, dead, exists, scale)
        close += part
        weighted += part * membership_derivative(a, norm, grad, QUANTIZE, SIGNED)
    share = moving_share(tl.sum(close, axis=1, keep_dims=True), tl.sum(weighted, axis=1, keep_dims=True))
    tl.store(cuts + patch, cut, mask=live)
    tl.store(shares + patch, share, mask=live)


@triton.jit(do_not_specialize=["scale", "height", "width", "patches_w", "patches", "total"])
def back_projection_kernel(
    grad_code,
    images,
    atoms,
    norms,
    dead_zone,
    cuts,
    shares,
    grad_patches,
    scale: tl.float32,
    height: tl.int32,
    width: tl.int32,
    patches_w: tl.int32,
    patches: tl.int32,
    total: tl.int32,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    MOVES: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
    PIXEL_TILE: tl.constexpr,
):
    """Computes gradients to patches, (total, CHANNELS * PATCH * PATCH). Without MOVES the dead zone is the cut."""
    PIXELS: tl.constexpr = CHANNELS * PATCH * PATCH
    PIXEL_GROUPS: tl.constexpr = (PIXELS + PIXEL_TILE - 1) // PIXEL_TILE
    patch = tl.program_id(0) // PIXEL_GROUPS * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    pixel = tl.program_id(0) % PIXEL_GROUPS * PIXEL_TILE + tl.arange(0, PIXEL_TILE)[None, :]
    column = tl.arange(0, ATOM_TILE)
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    grad_row = grad_code + patch.to(tl.int64) * ATOMS
    if MOVES:
        cut = tl.load(cuts + patch, mask=live, other=0.0)
        share = tl.load(shares + patch, mask=live, other=0.0)
    result = tl.zeros((PATCH_TILE, PIXEL_TILE), tl.float32)
    for first_atom in range(0, ATOMS, ATOM_TILE):
        a = project(
            images, atoms, origin, live, first_atom, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE
        )
        atom = first_atom + column[None, :]
        exists = atom < ATOMS
        norm, dead = load_levels(norms, dead_zone, atom, exists, QUANTIZE)
        grad = tl.load(grad_row + atom, mask=live & exists, other=0.0)
        derivative = membership_derivative(a, norm, grad, QUANTIZE, SIGNED)
        if MOVES:
            grad = closeness(a, cut, dead, exists, scale) * (derivative - share)
        else:
            grad = closeness(a, dead, 0.0, exists, scale) * derivative
        row = first_atom + column[:, None]
        d = tl.load(atoms + row.to(tl.int64) * PIXELS + pixel, mask=(row < ATOMS) & (pixel < PIXELS), other=0.0)
        # Without the factor Triton would add the products to ``result`` one by one, in one chain over all atoms.
        result += tl.dot(signs(a) * grad, d, input_precision="ieee") * scale
    tl.store(grad_patches + patch.to(tl.int64) * PIXELS + pixel, result, mask=live & (pixel < PIXELS))


@triton.jit(do_not_specialize=["height", "width", "patches_h", "patches_w"])
def fold_kernel(
    grad_patches,
    grad_images,
    height: tl.int32,
    width: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD_TILE: tl.constexpr,
):
    """Adds up the gradients to the patches at each pixel of an image; 0 where no patch covers it."""
    COVERING: tl.constexpr = (PATCH + STRIDE - 1) // STRIDE
    size = CHANNELS * height * width
    groups = tl.cdiv(size, FOLD_TILE)
    image = (tl.program_id(0) // groups).to(tl.int64)
    place = tl.program_id(0) % groups * FOLD_TILE + tl.arange(0, FOLD_TILE)
    channel = place // (height * width)
    y = place // width % height
    x = place % width
    grad = tl.zeros((FOLD_TILE,), tl.float32)
    for covering in range(0, COVERING * COVERING):
        i = y // STRIDE - covering // COVERING
        j = x // STRIDE - covering % COVERING
        ky = y - i * STRIDE
        kx = x - j * STRIDE
        inside = (place < size) & (ky < PATCH) & (kx < PATCH)
        inside &= (i >= 0) & (i < patches_h) & (j >= 0) & (j < patches_w)
        patch = (image * patches_h + i) * patches_w + j
        entry = (channel * PATCH + ky) * PATCH + kx
        grad += tl.load(grad_patches + patch * (CHANNELS * PATCH * PATCH) + entry, mask=inside, other=0.0)
    tl.store(grad_images + image * size + place, grad, mask=place < size)


def selection_backward(
    grad_code: Tensor,
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    stride: int,
    top_t: int,
    selection_width: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    grad_images = ops.selection_backward(
        grad_code, images, atoms, norms, dead_zone, stride, top_t, selection_width, quantize, signed
    )
    check_images(images)
    if top_t == atoms.shape[0] and not quantize:  # neither a cut nor a dead zone
        return grad_images.zero_()
    for launch in selection_backward_launches(
        grad_code, images, (atoms, norms, dead_zone), grad_images, stride, top_t, selection_width, quantize, signed
    ):
        launch.run()
    return grad_images


def selection_backward_launches(
    grad_code: Tensor,
    images: Tensor,
    dictionary: tuple[Tensor, Tensor, Tensor],
    grad_images: Tensor,
    stride: int,
    top_t: int,
    selection_width: float,
    quantize: bool,
    signed: bool,
) -> Iterator[Launch]:
    """Yields the launches that fill ``grad_images``: first the cuts, then the back projection and the fold.

    ``dictionary`` is atoms, norms and dead zone. With T = L the code must be quantized.
    """
    atoms, norms, dead_zone = (tensor.contiguous() for tensor in dictionary)
    sizes = patch_arguments(images, grad_code)
    inputs = {"images": images.contiguous(), "atoms": atoms}
    arguments: dict[str, Tensor | float] = {
        "grad_code": grad_code.contiguous(),
        "norms": norms,
        "dead_zone": dead_zone,
        "cuts": images.new_empty(sizes["total"]),
        "shares": images.new_empty(sizes["total"]),
        "scale": 1 / selection_width,
    }
    constants = dictionary_constants(atoms, stride, top_t) | {"QUANTIZE": quantize, "SIGNED": signed}
    moves = top_t < atoms.shape[0]
    if moves:
        yield from cut_launches(arguments, inputs, sizes, constants)
    grad_patches = images.new_empty(sizes["total"], atoms[0].numel())
    yield back_projection_launch(arguments | inputs | sizes, grad_patches, constants, moves)
    yield fold_launch(grad_patches, grad_images, grad_code, constants)


def cut_launches(
    arguments: dict[str, Tensor | float],
    inputs: dict[str, Tensor],
    sizes: dict[str, int],
    constants: dict[str, int],
) -> Iterator[Launch]:
    """Yields the launches that find the cuts.

    Args:
        arguments: The arguments of ``cut_kernel`` without ``inputs`` and ``sizes``.
        inputs: Images and atoms, by parameter.
        sizes: The result of ``patch_arguments``.
        constants: ``cut_kernel``'s compile-time parameters.
    """
    if not tiles.fits_registers(constants["ATOMS"]):
        names = ("TOP_T", "QUANTIZE", "SIGNED")
        yield from buffer_launches(large_cut_kernel, arguments, names, inputs, sizes, constants)
        return
    yield Launch(
        cut_kernel,
        tiles.num_tiles(sizes["total"], tiles.PATCH_TILE),
        arguments | inputs | sizes,
        # With more pixels at once, ptxas spills some bytes on GPUs where it plans for 24 warps.
        constants | {"PIXEL_SLICE": tiles.LEAST_TERMS},
        tiles.warps(tiles.PATCH_TILE * constants["ATOM_TILE"], 16),
    )


def back_projection_launch(
    arguments: dict[str, Tensor | float], grad_patches: Tensor, constants: dict[str, int], moves: bool
) -> Launch:
    """Returns the launch that fills ``grad_patches``; without ``moves`` the dead zone is the cut."""
    total, length = grad_patches.shape
    pixel_tile = min(max(triton.next_power_of_2(length), 16), MOST_PIXELS)
    patch_tile = min(MOST_SUMS // pixel_tile, MOST_PATCHES)
    atom_tile = min(constants["ATOM_TILE"], MOST_ATOMS)
    names = ("ATOMS", "CHANNELS", "PATCH", "STRIDE", "QUANTIZE", "SIGNED")
    return Launch(
        back_projection_kernel,
        tiles.num_tiles(total, patch_tile) * tiles.num_tiles(length, pixel_tile),
        arguments | {"grad_patches": grad_patches},
        {name: constants[name] for name in names}
        | {
            "MOVES": moves,
            "PATCH_TILE": patch_tile,
            "ATOM_TILE": atom_tile,
            "PIXEL_SLICE": tiles.pixel_slice(atom_tile),
            "PIXEL_TILE": pixel_tile,
        },
        tiles.warps(patch_tile * pixel_tile, 16),
    )


def fold_launch(grad_patches: Tensor, grad_images: Tensor, grad_code: Tensor, constants: dict[str, int]) -> Launch:
    num_images, channels, height, width = grad_images.shape
    arguments = {
        "grad_patches": grad_patches,
        "grad_images": grad_images,
        "height": height,
        "width": width,
        "patches_h": grad_code.shape[1],
        "patches_w": grad_code.shape[2],
    }
    names = ("CHANNELS", "PATCH", "STRIDE")
    programs = num_images * tiles.num_tiles(channels * height * width, FOLD_TILE)
    tile = {"FOLD_TILE": FOLD_TILE}
    return Launch(fold_kernel, programs, arguments, {name: constants[name] for name in names} | tile, 4)
