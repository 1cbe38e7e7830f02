"""The fused encoder for one realization: projection, top T, dropout and quantization in one kernel.

The selection stays in registers. For dictionaries that are too large for this, ``select`` and ``draw`` give the same
results to the bit.
"""

import triton
import triton.language as tl
from torch import Tensor

from .. import ops
from . import search, tiles
from .checks import check_image_ids, check_images
from .draw import code_arguments, draw
from .launch import Launch
from .philox import lane_survivors
from .select import dictionary_constants, patch_arguments, search_constants, select, write_slots
from .steps import activate, patch_origins, project_all


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
    FIRST: tl.constexpr,
    SLOT_TILE: tl.constexpr,
):
    first = tl.program_id(0) * PATCH_TILE
    row = tl.arange(0, PATCH_TILE)[:, None]
    patch = first + row
    live = patch < total
    origin = patch_origins(patch, height, width, patches_w, patches, CHANNELS, STRIDE)
    a = project_all(images, atoms, origin, live, height, width, ATOMS, CHANNELS, PATCH, ATOM_TILE, PIXEL_SLICE)
    atom = search.lane_atoms(ATOM_TILE)
    place = search.lane_patches(PATCH_TILE)
    lane_live = first + place < total
    cut, lane_number = search.find_cut(a, atom, ATOMS, TOP_T, FIRST)

    start = first.to(tl.int64) * TOP_T
    index += start
    value += start
    projection += start
    count += first
    randomness = (seed, image_ids, drop_threshold, realization.to(tl.uint32), first, patches)
    if search.has_ties(lane_number, lane_live, TOP_T):
        cut, last = search.place_ties(a, atom, lane_number, cut, TOP_T)
        cut = search.only_live(cut, lane_live)
        write_survivors(index, projection, count, a, atom, place, lane_live, cut, last, randomness, True, TOP_T)
    else:
        cut = search.only_live(cut, lane_live)
        write_survivors(index, projection, count, a, atom, place, lane_live, cut, cut, randomness, False, TOP_T)
    # The rest reads what other threads of this program have written.
    tl.debug_barrier()
    num_used = tl.load(count + row, mask=live, other=0)
    for first_slot in range(0, TOP_T, SLOT_TILE):
        slot = first_slot + tl.arange(0, SLOT_TILE)[None, :]
        write_values(
            index,
            value,
            projection,
            row * TOP_T + slot,
            live & (slot < num_used),
            norms,
            dead_zone,
            QUANTIZE,
            SIGNED,
        )


@triton.jit
def write_survivors(
    index,
    projection,
    count,
    a,
    atom,
    place,
    live,
    cut,
    last,
    randomness,
    TIES: tl.constexpr,
    TOP_T: tl.constexpr,
):
    """Draws, and writes atoms and projections of the survivors, and their number, patch by patch."""
    if a.shape[0] > 1:
        a_0, a_1 = search.patch_halves(a)
        place_0, place_1 = search.patch_halves(place)
        live_0, live_1 = search.patch_halves(live)
        cut_0, cut_1 = search.patch_halves(cut)
        last_0, last_1 = search.patch_halves(last)
        write_survivors(index, projection, count, a_0, atom, place_0, live_0, cut_0, last_0, randomness, TIES, TOP_T)
        write_survivors(index, projection, count, a_1, atom, place_1, live_1, cut_1, last_1, randomness, TIES, TOP_T)
    else:
        seed, image_ids, drop_threshold, realization, first, patches = randomness
        patch = first + place
        image_id = tl.load(image_ids + patch // patches, mask=live, other=0)
        tl.device_assert((image_id >= 0) & (image_id < 2**32), "image_ids holds numbers outside [0, 2^32)")
        number = search.selected(a, atom, cut, last, TIES)
        number &= lane_survivors(
            patch % patches, realization, image_id, seed, drop_threshold, search.LANES * a.shape[1]
        )
        lane_number = tl.sum(number, axis=1, keep_dims=True)
        end = tl.cumsum(lane_number, axis=3)
        is_last = tl.arange(0, search.LANES)[None, None, None, :] == search.LANES - 1
        tl.store(count + tl.broadcast_to(place, end.shape), end, mask=live & is_last)
        write_slots(index, projection, number, lane_number, a, atom, place * TOP_T)


@triton.jit
def write_values(index, value, projection, slot, used, norms, dead_zone, QUANTIZE: tl.constexpr, SIGNED: tl.constexpr):
    """Writes values to the slots that are used; the others are not written."""
    atom = tl.load(index + slot, mask=used, other=0).to(tl.int32)
    a = tl.load(projection + slot, mask=used, other=0.0)
    norm = tl.load(norms + atom, mask=used, other=0.0)
    dead = tl.load(dead_zone + atom, mask=used, other=0.0)
    tl.store(value + slot, activate(a, norm, dead, QUANTIZE, SIGNED), mask=used)


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
    if not tiles.fits_fused(atoms.shape[0]):
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
    constants = (
        dictionary_constants(atoms, stride, top_t)
        | search_constants(atoms.shape[0], top_t)
        | {
            "QUANTIZE": quantize,
            "SIGNED": signed,
            "SLOT_TILE": tiles.slot_tile(top_t),
        }
    )
    patch_tile = constants["PATCH_TILE"]
    programs = tiles.num_tiles(sizes["total"], patch_tile)
    return Launch(encode_kernel, programs, arguments, constants, patch_tile // tiles.WARP_PATCHES)
