"""The gradient from a code to the images: the white-box near-full gradient approximation (W-NFGA, section 4).

Each program computes some pixels of one image. For each pixel it visits the patches that cover it, one realization
after another, and adds up the survivors' atoms times their gradients. No two programs write to one pixel, so every run
gives the same bits. Pixels that no patch covers get 0.
"""

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import tiles
from .checks import check_index
from .launch import Launch


@triton.jit
def sech2(x):
    e = tl.exp(-2.0 * tl.abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def surrogate_derivative(a, norm, dead_zone, sigma, SURROGATE: tl.constexpr):
    """Returns the derivative at projection a that replaces the quantizer's (``SURROGATES`` in ``ops/encoder.py``)."""
    if SURROGATE == "identity":
        return tl.full(a.shape, 1.0, tl.float32)
    else:
        if SURROGATE == "smooth":
            width = tl.zeros_like(a) + sigma
            height = norm
        else:
            width = sigma * norm
            height = tl.full(a.shape, 1.0, tl.float32)
        return height / (2.0 * sigma) * (sech2((a - dead_zone) / width) + sech2((a + dead_zone) / width))


@triton.jit(
    do_not_specialize=["sigma", "num_atoms", "height", "width", "patches_h", "patches_w", "num_images", "realizations"]
)
def encode_backward_kernel(
    grad_value,
    index,
    projection,
    count,
    atoms,
    norms,
    dead_zone,
    grad_images,
    sigma: tl.float32,
    num_atoms: tl.int32,
    height: tl.int32,
    width: tl.int32,
    patches_h: tl.int32,
    patches_w: tl.int32,
    num_images: tl.int32,
    realizations: tl.int32,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    TOP_T: tl.constexpr,
    SURROGATE: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PIXEL_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    COVERING: tl.constexpr = (PATCH + STRIDE - 1) // STRIDE
    groups = tl.cdiv(height * width, PIXEL_TILE)
    image = tl.program_id(0) // groups
    pixel = tl.program_id(0) % groups * PIXEL_TILE + tl.arange(0, PIXEL_TILE)
    y = pixel // width
    x = pixel % width
    channel = tl.arange(0, CHANNEL_TILE)[None, :]
    grad = tl.zeros((PIXEL_TILE, CHANNEL_TILE), tl.float32)
    all_exist = tl.full((PIXEL_TILE,), True, tl.int1)
    for realization in range(0, realizations):
        row = num_images.to(tl.int64) * realization + image
        for covering in range(0, COVERING * COVERING):
            i = y // STRIDE - covering // COVERING
            j = x // STRIDE - covering % COVERING
            ky = y - i * STRIDE
            kx = x - j * STRIDE
            inside = (pixel < height * width) & (ky < PATCH) & (kx < PATCH)
            inside &= (i >= 0) & (i < patches_h) & (j >= 0) & (j < patches_w)
            patch = (row * patches_h + i) * patches_w + j
            offset = patch * TOP_T
            entry = channel * (PATCH * PATCH) + (ky * PATCH + kx)[:, None]
            survivors = tl.minimum(tl.load(count + patch, mask=inside, other=0), TOP_T)
            for slot in range(0, tl.max(survivors)):
                used = slot < survivors
                atom = tl.load(index + offset + slot, mask=used, other=0).to(tl.int32)
                exists = used & (atom >= 0) & (atom < num_atoms)
                all_exist &= exists == used
                g = tl.load(grad_value + offset + slot, mask=exists, other=0.0)
                if QUANTIZE or not SIGNED:
                    a = tl.load(projection + offset + slot, mask=exists, other=0.0)
                if QUANTIZE:
                    norm = tl.load(norms + atom, mask=exists, other=1.0)
                    dead = tl.load(dead_zone + atom, mask=exists, other=0.0)
                    g *= surrogate_derivative(a, norm, dead, sigma, SURROGATE)
                if not SIGNED:
                    g = tl.where(a > 0, g, tl.where(a < 0, -g, 0.0))
                start = atom.to(tl.int64) * (CHANNELS * PATCH * PATCH)
                mask = exists[:, None] & (channel < CHANNELS)
                grad += g[:, None] * tl.load(atoms + start[:, None] + entry, mask=mask, other=0.0)
    tl.device_assert(all_exist, "index names an atom that the dictionary does not have")
    place = (image.to(tl.int64) * CHANNELS + channel) * height * width + pixel[:, None]
    tl.store(grad_images + place, grad, mask=(pixel < height * width)[:, None] & (channel < CHANNELS))


def encode_backward(
    grad_value: Tensor,
    index: Tensor,
    projection: Tensor,
    count: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    height: int,
    width: int,
    stride: int,
    num_images: int,
    surrogate: str,
    sigma: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    grad_images = ops.encode_backward(
        grad_value, index, projection, count, atoms, norms, dead_zone, height, width, stride, num_images, surrogate,
        sigma, quantize, signed,
    )  # fmt: skip
    check_index(index, count, atoms.shape[0])
    code = (grad_value, index, projection, count)
    dictionary = (atoms, norms, dead_zone)
    encode_backward_launch(code, dictionary, grad_images, stride, surrogate, sigma, quantize, signed).run()
    return grad_images


def encode_backward_launch(
    code: tuple[Tensor, Tensor, Tensor, Tensor],
    dictionary: tuple[Tensor, Tensor, Tensor],
    grad_images: Tensor,
    stride: int,
    surrogate: str,
    sigma: float,
    quantize: bool,
    signed: bool,
) -> Launch:
    """Returns the launch that fills ``grad_images``.

    Args:
        code: Gradient to the values, index, projection and count.
        dictionary: Atoms, norms and dead zone.
    """
    rows, patches_h, patches_w, top_t = code[0].shape
    num_images, channels, height, width = grad_images.shape
    tensors = (tensor.contiguous() for tensor in (*code, *dictionary))
    names = ("grad_value", "index", "projection", "count", "atoms", "norms", "dead_zone")
    arguments = dict(zip(names, tensors, strict=True)) | {
        "grad_images": grad_images,
        "sigma": sigma,
        "num_atoms": dictionary[0].shape[0],
        "height": height,
        "width": width,
        "patches_h": patches_h,
        "patches_w": patches_w,
        "num_images": num_images,
        "realizations": rows // max(num_images, 1),
    }
    channel_tile = tiles.next_power_of_2(channels)
    constants = {
        "CHANNELS": channels,
        "PATCH": dictionary[0].shape[2],
        "STRIDE": stride,
        "TOP_T": top_t,
        "SURROGATE": surrogate,
        "QUANTIZE": quantize,
        "SIGNED": signed,
        "PIXEL_TILE": tiles.PIXEL_TILE,
        "CHANNEL_TILE": channel_tile,
    }
    programs = num_images * tiles.num_tiles(height * width, tiles.PIXEL_TILE)
    num_warps = tiles.warps(tiles.PIXEL_TILE * channel_tile, 4)
    return Launch(encode_backward_kernel, programs, arguments, constants, num_warps)
