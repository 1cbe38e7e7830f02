"""The gradient to the images through membership in the top T (``membership_gradient`` of ``kernels/reference.py``).

There are three steps. The first finds each patch's cut, and the share that the moving cut takes from each atom's
derivative (``selection_cut.py``). The second computes the gradient to each patch's pixels: it goes through the atoms
in tiles, projects again, computes the gradients to the projections in registers, and multiplies them with the atoms.
The third adds up the patches' gradients at the pixels of the images. All sums have a fixed order, which depends on
the shapes alone.
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import tiles
from .checks import check_images
from .launch import Launch
from .search import as_bits, as_float
from .select import dictionary_constants, patch_arguments
from .selection_cut import closeness, cut_launches, load_levels, with_sign
from .steps import patch_origins, project

# Patches of a program of the back projection, and limits. It goes through its pixels in parts of a power of two.
PATCH_TILE = 32
MOST_ATOMS = 32
MOST_PIXELS = 64
MOST_PARTS = 3
# Pixels of a program of the fold.
FOLD_TILE = 512


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
    PARTS: tl.constexpr,
):
    """Computes gradients to patches, (total, CHANNELS * PATCH * PATCH). Without MOVES the dead zone is the cut.

    A program computes PARTS tiles of pixels.
    """
    PIXELS: tl.constexpr = CHANNELS * PATCH * PATCH
    PIXEL_GROUPS: tl.constexpr = (PIXELS + PIXEL_TILE * PARTS - 1) // (PIXEL_TILE * PARTS)
    patch = tl.program_id(0) // PIXEL_GROUPS * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    pixel = tl.program_id(0) % PIXEL_GROUPS * (PIXEL_TILE * PARTS) + tl.arange(0, PIXEL_TILE)[None, :]
    column = tl.arange(0, ATOM_TILE)
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    grad_row = grad_code + patch.to(tl.int64) * ATOMS
    cut = 0.0
    share = 0.0
    if MOVES:
        cut = tl.load(cuts + patch, mask=live, other=0.0)
        share = tl.load(shares + patch, mask=live, other=0.0)
    sums = ()
    for _ in tl.static_range(PARTS):
        sums = sums + (tl.zeros((PATCH_TILE, PIXEL_TILE), tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
    for first_atom in range(0, ATOMS, ATOM_TILE):
        a = project(
            images, atoms, origin, live, first_atom, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE
        )
        atom = first_atom + column[None, :]
        exists = atom < ATOMS
        norm, edge = load_levels(norms, dead_zone, atom, exists, QUANTIZE)
        grad = tl.load(grad_row + atom, mask=live & exists, other=0.0)
        grad = projection_gradient(a, norm, edge, grad, cut, share, scale, MOVES, QUANTIZE, SIGNED)
        row = first_atom + column[:, None]
        products = ()
        for part in tl.static_range(PARTS):
            place = part * PIXEL_TILE + pixel
            d = tl.load(atoms + row.to(tl.int64) * PIXELS + place, mask=(row < ATOMS) & (place < PIXELS), other=0.0)
            # Without the factor Triton would add the products to the sum one by one, in one chain over all atoms.
            product = tl.dot(grad, d, input_precision="ieee") * scale
            products = products + (sums[part] + product,)  # type: ignore[assignment]  # noqa: RUF005
        sums = products
    for part in tl.static_range(PARTS):
        place = part * PIXEL_TILE + pixel
        tl.store(grad_patches + patch.to(tl.int64) * PIXELS + place, sums[part], mask=live & (place < PIXELS))


@triton.jit
def positive(x):
    """Returns x, the least positive number for 0."""
    return as_float(tl.maximum(as_bits(x), 1))


@triton.jit
def projection_gradient(
    a, norm, edge, grad, cut, share, scale, MOVES: tl.constexpr, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr
):
    """Returns the gradient to the projections over ``scale``, from ``grad``, that to the code.

    It is 0 for projections of 0, or NaN where ``grad`` is. The sign of a projection is a factor of the membership's
    derivative to it, and with SIGNED of the code's value too, so that only the share keeps it.
    """
    value = norm if QUANTIZE else tl.abs(a)
    if MOVES:
        close = closeness(a, cut, positive(edge), scale)
        if SIGNED:
            return close * (value * grad - with_sign(share, a))
        else:
            return with_sign(close * (value * grad - share), a)
    else:
        close = closeness(a, edge, positive(tl.zeros_like(edge)), scale)
        return close * (value * grad) if SIGNED else with_sign(close * (value * grad), a)


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


def back_projection_launch(
    arguments: dict[str, Tensor | float], grad_patches: Tensor, constants: dict[str, int], moves: bool
) -> Launch:
    """Returns the launch that fills ``grad_patches``; without ``moves`` the dead zone is the cut."""
    total, length = grad_patches.shape
    pixel_tile = min(max(tiles.next_power_of_2(tiles.num_tiles(length, MOST_PARTS)), 16), MOST_PIXELS)
    parts = min(tiles.num_tiles(length, pixel_tile), MOST_PARTS)
    atom_tile = min(constants["ATOM_TILE"], MOST_ATOMS)
    names = ("ATOMS", "CHANNELS", "PATCH", "STRIDE", "QUANTIZE", "SIGNED")
    return Launch(
        back_projection_kernel,
        tiles.num_tiles(total, PATCH_TILE) * tiles.num_tiles(length, pixel_tile * parts),
        arguments | {"grad_patches": grad_patches},
        {name: constants[name] for name in names}
        | {
            "MOVES": moves,
            "PATCH_TILE": PATCH_TILE,
            "ATOM_TILE": atom_tile,
            "PIXEL_SLICE": tiles.pixel_slice(atom_tile),
            "PIXEL_TILE": pixel_tile,
            "PARTS": parts,
        },
        tiles.warps(PATCH_TILE * pixel_tile * parts, 24),
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
