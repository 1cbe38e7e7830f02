"""Inner products of patches with atoms: what a program of the encoder starts from."""

import triton
import triton.language as tl


@triton.jit
def patch_origins(patch, height, width, patches_w, patches, CHANNELS: tl.constexpr, STRIDE: tl.constexpr):
    """Offset of each patch's first pixel, for patches numbered through the whole batch, ``patches`` an image."""
    image = (patch // patches).to(tl.int64)
    within = patch % patches
    row = within // patches_w * STRIDE
    column = within % patches_w * STRIDE
    return image * CHANNELS * height * width + row * width + column


@triton.jit
def project(
    images,
    atoms,
    origin,
    live,
    first_atom,
    height,
    width,
    ATOMS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    ATOM_TILE: tl.constexpr,
    PIXEL_SLICE: tl.constexpr,
):
    """(patches, ATOM_TILE) float32 for the atoms from ``first_atom`` on; 0 for those that do not exist.

    ``origin`` and ``live`` are (patches, 1).

    IEEE multiply-adds in the order of the pixels, so a projection depends on its patch and atom alone.
    """
    PIXELS: tl.constexpr = CHANNELS * PATCH * PATCH
    atom = first_atom + tl.arange(0, ATOM_TILE)
    projection = tl.zeros((origin.shape[0], ATOM_TILE), tl.float32)
    for first in range(0, PIXELS, PIXEL_SLICE):
        pixel = first + tl.arange(0, PIXEL_SLICE)
        channel = pixel // (PATCH * PATCH)
        row = pixel % (PATCH * PATCH) // PATCH
        offset = (channel * height + row) * width + pixel % PATCH
        inside = pixel < PIXELS
        x = tl.load(images + origin + offset[None, :], mask=live & inside[None, :], other=0.0)
        d = tl.load(
            atoms + atom.to(tl.int64)[:, None] * PIXELS + pixel[None, :],
            mask=(atom < ATOMS)[:, None] & inside[None, :],
            other=0.0,
        )
        projection = tl.dot(x, tl.trans(d), projection, input_precision="ieee")
    return projection
