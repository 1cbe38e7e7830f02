"""The encoder's operations: selection, draw, the fused encode, and the gradients to the image."""

import torch
from torch import Tensor

from .. import shapes
from ..philox import drop_threshold
from ..surrogates import SURROGATES
from .calls import code_struct, empty, pointer, refuse_bad_index, run
from .structures import Dictionary, Draws, Gradient, Images, Membership, Selection


def image_struct(images: Tensor) -> Images:
    tolerance = shapes.RANGE_TOLERANCE
    return Images(images.data_ptr(), *images.shape, -tolerance, 1 + tolerance)


def dictionary_struct(atoms: Tensor, norms: Tensor | None, dead_zone: Tensor | None, stride: int) -> Dictionary:
    count, channels, patch, _ = atoms.shape
    return Dictionary(atoms.data_ptr(), pointer(norms), pointer(dead_zone), count, channels, patch, stride)


def draw_struct(seed: Tensor, image_ids: Tensor, start: int, dropout_p: float, quantize: bool, signed: bool) -> Draws:
    return Draws(image_ids.data_ptr(), int(seed), start, drop_threshold(dropout_p), quantize, signed)


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    shape = shapes.select(images, atoms, stride, top_t)
    images, atoms = images.contiguous(), atoms.contiguous()
    atom, projection = empty(shape, torch.int16), empty(shape)
    selection = Selection(atom.data_ptr(), projection.data_ptr(), *shape)
    if run("select", image_struct(images), dictionary_struct(atoms, None, None, stride), selection):
        shapes.check_images(images)
    return atom, projection


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
    shape = shapes.draw(atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p)
    shapes.check_image_ids(image_ids)
    shapes.check_selected(atom, norms.shape[0])
    atom, projection, image_ids = atom.contiguous(), projection.contiguous(), image_ids.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
    code = shapes.empty_code(projection, shape)
    run(
        "draw",
        Selection(atom.data_ptr(), projection.data_ptr(), *atom.shape),
        Dictionary(None, norms.data_ptr(), dead_zone.data_ptr(), norms.shape[0]),
        draw_struct(seed, image_ids, start, dropout_p, quantize, signed),
        code_struct(*code),
    )
    return code


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
    shape = shapes.encode(images, atoms, norms, dead_zone, seed, image_ids, stride, top_t, realization, dropout_p)
    shapes.check_image_ids(image_ids)
    images, atoms, image_ids = images.contiguous(), atoms.contiguous(), image_ids.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
    code = shapes.empty_code(images, shape)
    draws = draw_struct(seed, image_ids, realization, dropout_p, quantize, signed)
    dictionary = dictionary_struct(atoms, norms, dead_zone, stride)
    if run("encode", image_struct(images), dictionary, draws, code_struct(*code)):
        shapes.check_images(images)
    return code


def encode_backward(
    grad_value: Tensor,
    index: Tensor,
    projection: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    height: int,
    width: int,
    stride: int,
    images: int,
    surrogate: str,
    sigma: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    shape = shapes.encode_backward(
        grad_value, index, projection, atoms, norms, dead_zone, height, width, stride, images, surrogate, sigma
    )
    grad_value, index, projection = grad_value.contiguous(), index.contiguous(), projection.contiguous()
    atoms, norms, dead_zone = atoms.contiguous(), norms.contiguous(), dead_zone.contiguous()
    result = empty(shape)
    status = run(
        "encode_backward",
        grad_value.data_ptr(),
        code_struct(index, None, projection, None),
        dictionary_struct(atoms, norms, dead_zone, stride),
        Gradient(images, height, width, SURROGATES.index(surrogate), quantize, signed, sigma),
        result.data_ptr(),
    )
    refuse_bad_index(status, index, atoms.shape[0])
    return result


def selection_backward(
    grad_code: Tensor,
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    stride: int,
    top_t: int,
    width: float,
    quantize: bool,
    signed: bool,
) -> Tensor:
    shapes.selection_backward(grad_code, images, atoms, norms, dead_zone, stride, top_t, width)
    if top_t == len(atoms) and not quantize:  # neither a cut nor a dead zone
        shapes.check_images(images)
        return empty(images.shape).zero_()
    grad_code, images, atoms = grad_code.contiguous(), images.contiguous(), atoms.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
    result = empty(images.shape)
    dictionary = dictionary_struct(atoms, norms, dead_zone, stride)
    membership = Membership(grad_code.data_ptr(), *grad_code.shape[1:3], top_t, width, quantize, signed)
    if run("selection_backward", image_struct(images), dictionary, membership, result.data_ptr()):
        shapes.check_images(images)
    return result
