"""Draws realizations of a selection: dropout (eq. 2) and activation/quantization (eq. 3)."""

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from ..philox import drop_threshold
from . import tiles
from .checks import check_draw
from .launch import Launch
from .philox import survives
from .steps import next_slots, row_count, write_survivors


@triton.jit(do_not_specialize=["drop_threshold", "start", "atoms", "patches", "total"])
def draw_kernel(
    selected,
    selected_projection,
    norms,
    dead_zone,
    seed,
    image_ids,
    index,
    value,
    projection,
    count,
    drop_threshold: tl.uint32,
    start: tl.uint32,
    atoms: tl.int32,
    patches: tl.int32,
    total: tl.int32,
    TOP_T: tl.constexpr,
    QUANTIZE: tl.constexpr,
    SIGNED: tl.constexpr,
    PATCH_TILE: tl.constexpr,
    SLOT_TILE: tl.constexpr,
):
    groups = tl.cdiv(total, PATCH_TILE)
    realization = tl.program_id(0) // groups
    patch = tl.program_id(0) % groups * PATCH_TILE + tl.arange(0, PATCH_TILE)[:, None]
    live = patch < total
    image_id = tl.load(image_ids + patch // patches, mask=live, other=0)
    tl.device_assert((image_id >= 0) & (image_id < 2**32), "image_ids holds numbers outside [0, 2^32)")
    source = patch.to(tl.int64) * TOP_T
    target = source + realization.to(tl.int64) * total * TOP_T
    num_used = tl.zeros_like(patch)
    all_exist = tl.full((PATCH_TILE, SLOT_TILE), True, tl.int1)
    for first in range(0, TOP_T, SLOT_TILE):
        slot = first + tl.arange(0, SLOT_TILE)[None, :]
        inside = live & (slot < TOP_T)
        atom = tl.load(selected + source + slot, mask=inside, other=0).to(tl.int32)
        exists = (atom >= 0) & (atom < atoms)
        all_exist &= exists
        keep = (
            inside
            & exists
            & survives(
                atom, patch % patches, start.to(tl.uint32) + realization.to(tl.uint32), image_id, seed, drop_threshold
            )
        )
        a = tl.load(selected_projection + source + slot, mask=keep, other=0.0)
        norm = tl.load(norms + atom, mask=keep, other=0.0)
        dead = tl.load(dead_zone + atom, mask=keep, other=0.0)
        offset = target + next_slots(keep, num_used)
        write_survivors(index, value, projection, offset, keep, atom, a, norm, dead, QUANTIZE, SIGNED)
        num_used += row_count(keep)
    tl.store(count + realization.to(tl.int64) * total + patch, num_used, mask=live)
    tl.device_assert(all_exist, "atom names an atom that the dictionary does not have")


def draw(
    atom: Tensor,
    projection: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    seed: Tensor,
    image_ids: Tensor,
    start: int,
    count: int,
    dropout_p: float,
    quantize: bool,
    signed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    code = ops.draw(atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p, quantize, signed)
    check_draw(atom, norms.shape[0], image_ids)
    draw_launch(
        (atom, projection), (norms, dead_zone), (seed, image_ids), code, start, count, dropout_p, quantize, signed
    ).run()
    return code


def draw_launch(
    selection: tuple[Tensor, Tensor],
    levels: tuple[Tensor, Tensor],
    randomness: tuple[Tensor, Tensor],
    code: ops.Code,
    start: int,
    count: int,
    dropout_p: float,
    quantize: bool,
    signed: bool,
) -> Launch:
    """Returns the launch that fills ``code``. ``levels`` is (norms, dead zone), ``randomness`` (seed, image ids)."""
    batch, patches_h, patches_w, top_t = selection[0].shape
    total = batch * patches_h * patches_w
    arguments = {
        "selected": selection[0].contiguous(),
        "selected_projection": selection[1].contiguous(),
        **code_arguments(levels, randomness, code, dropout_p),
        "start": start,
        "atoms": levels[0].shape[0],
        "patches": patches_h * patches_w,
        "total": total,
    }
    slot_tile = tiles.slot_tile(top_t)
    constants = {
        "TOP_T": top_t,
        "QUANTIZE": quantize,
        "SIGNED": signed,
        "PATCH_TILE": tiles.PATCH_TILE,
        "SLOT_TILE": slot_tile,
    }
    programs = count * tiles.num_tiles(total, tiles.PATCH_TILE)
    return Launch(draw_kernel, programs, arguments, constants, tiles.warps(tiles.PATCH_TILE * slot_tile, 4))


def code_arguments(
    levels: tuple[Tensor, Tensor],
    randomness: tuple[Tensor, Tensor],
    code: ops.Code,
    dropout_p: float,
) -> dict[str, Tensor | int]:
    """Returns the arguments shared by all kernels that draw a code."""
    tensors = (*levels, *randomness)
    names = ("norms", "dead_zone", "seed", "image_ids", "index", "value", "projection", "count")
    contiguous = (tensor.contiguous() for tensor in tensors)
    return dict(zip(names, (*contiguous, *code), strict=True)) | {"drop_threshold": drop_threshold(dropout_p)}
