"""The fused encoder for one realization: projection, top T, dropout and quantization in one kernel.

The selection stays in registers. For dictionaries that are too large for this, ``select`` and ``draw`` give the same
results to the bit.
"""

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import tiles
from .checks import check_image_ids, check_images
from .draw import code_arguments, draw
from .launch import Launch
from .philox import all_survivors
from .select import dictionary_constants, patch_arguments, select
from .steps import halves, next_slots, patch_origins, project, row_count, top_t, write_survivors


@triton.jit(do_not_specialize=["drop_threshold", "realization", "height", "width", "patches_w", "patches", "total"])
def encode_kernel(
    images,
    atoms,
    norms,
    dead_zone,
    seed,
    image_ids,
    index,
    value,
    projection,
    count,
    drop_threshold: tl.uint32,
    realization: tl.uint32,
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
    SLOT_TILE: tl.constexpr,
):
    first = tl.program_id(0) * PATCH_TILE
    lane = tl.arange(0, PATCH_TILE)[:, None]
    patch = first + lane
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project(images, atoms, origin, live, 0, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE)
    atom = tl.arange(0, ATOM_TILE)[None, :]
    keep = top_t(a, atom < ATOMS, TOP_T)
    image_id = tl.load(image_ids + patch // patches, mask=live, other=0)
    tl.device_assert((image_id >= 0) & (image_id < 2**32), "image_ids holds numbers outside [0, 2^32)")
    keep &= all_survivors(patch % patches, realization.to(tl.uint32), image_id, seed, drop_threshold, ATOM_TILE)
    num_used = row_count(keep)
    tl.store(count + patch, num_used, mask=live)

    start = first.to(tl.int64) * TOP_T
    index += start
    value += start
    projection += start
    row = lane * TOP_T
    offset = row + next_slots(keep, tl.zeros_like(row))
    # An address takes two registers. Those of half of the atoms fit, so the halves are written in turn.
    offset_even, offset_odd = halves(offset)
    keep_even, keep_odd = halves((keep & live).to(tl.int8))
    a_even, a_odd = halves(a)
    even = 2 * tl.arange(0, ATOM_TILE // 2)[None, :]
    norm, dead = load_levels(norms, dead_zone, even, ATOMS)
    write_survivors(index, value, projection, offset_even, keep_even != 0, even, a_even, norm, dead, QUANTIZE, SIGNED)
    norm, dead = load_levels(norms, dead_zone, even + 1, ATOMS)
    write_survivors(index, value, projection, offset_odd, keep_odd != 0, even + 1, a_odd, norm, dead, QUANTIZE, SIGNED)


@triton.jit
def load_levels(norms, dead_zone, atom, ATOMS: tl.constexpr):
    exists = atom < ATOMS
    return tl.load(norms + atom, mask=exists, other=0.0), tl.load(dead_zone + atom, mask=exists, other=0.0)


def encode(
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    seed: Tensor,
    image_ids: Tensor,
    stride: int,
    top_t: int,
    realization: int,
    dropout_p: float,
    quantize: bool,
    signed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    code = ops.encode(
        images, atoms, norms, dead_zone, seed, image_ids, stride, top_t, realization, dropout_p, quantize, signed
    )
    if not tiles.fits_registers(atoms.shape[0]):
        selection = select(images, atoms, stride, top_t)
        return draw(*selection, norms, dead_zone, seed, image_ids, realization, 1, dropout_p, quantize, signed)
    check_images(images)
    check_image_ids(image_ids)
    encode_launch(
        images, atoms, (norms, dead_zone), (seed, image_ids), code, stride, realization, dropout_p, quantize, signed
    ).run()
    return code


def encode_launch(
    images: Tensor,
    atoms: Tensor,
    levels: tuple[Tensor, Tensor],
    randomness: tuple[Tensor, Tensor],
    code: ops.Code,
    stride: int,
    realization: int,
    dropout_p: float,
    quantize: bool,
    signed: bool,
) -> Launch:
    """Returns the launch that fills ``code``. ``levels`` is (norms, dead zone), ``randomness`` (seed, image ids)."""
    sizes = patch_arguments(images, code[0])
    arguments = {
        "images": images.contiguous(),
        "atoms": atoms.contiguous(),
        **code_arguments(levels, randomness, code, dropout_p),
        "realization": realization,
        **sizes,
    }
    top_t = code[0].shape[3]
    constants = dictionary_constants(atoms, stride, top_t) | {
        "QUANTIZE": quantize,
        "SIGNED": signed,
        "SLOT_TILE": tiles.slot_tile(top_t),
    }
    num_warps = tiles.warps(tiles.PATCH_TILE * constants["ATOM_TILE"], 16)
    return Launch(encode_kernel, tiles.num_tiles(sizes["total"], tiles.PATCH_TILE), arguments, constants, num_warps)
