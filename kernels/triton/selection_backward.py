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
from .select import dictionary_constants, patch_arguments
from .selection_cut import closeness, cut_launches, load_levels, membership_derivative, signs
from .steps import patch_origins, project

# Limits of a program of the back projection. With more than 128 pixels, MOST_SUMS allows 16 patches.
MOST_PATCHES = 32
MOST_ATOMS = 32
MOST_PIXELS = 256
MOST_SUMS = 4096
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
