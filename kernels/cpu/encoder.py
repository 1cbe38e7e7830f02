"""The encoder's operations: selection, draw, the fused encode, and the gradients to the images.

The library checks pixels as it reads them, and reports bad ones by its status; ``check_images`` then raises the error.
"""

from torch import Tensor

from .. import ops
from ..checks import RANGE_TOLERANCE, check_image_ids, check_images, check_selection
from ..philox import drop_threshold
from .library import (
    Dictionary,
    Draws,
    Gradient,
    Images,
    Membership,
    Selection,
    code_struct,
    pointer,
    refuse_bad_index,
    run,
)


def image_struct(images: Tensor) -> Images:
    return Images(images.data_ptr(), *images.shape, -RANGE_TOLERANCE, 1 + RANGE_TOLERANCE)


def dictionary_struct(atoms: Tensor, norms: Tensor | None, dead_zone: Tensor | None, stride: int) -> Dictionary:
    num_atoms, channels, patch, _ = atoms.shape
    return Dictionary(atoms.data_ptr(), pointer(norms), pointer(dead_zone), num_atoms, channels, patch, stride)


def draw_struct(seed: Tensor, image_ids: Tensor, start: int, dropout_p: float, quantize: bool, signed: bool) -> Draws:
    return Draws(image_ids.data_ptr(), int(seed), start, drop_threshold(dropout_p), quantize, signed)


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    atom, projection = ops.select(images, atoms, stride, top_t)
    images, atoms = images.contiguous(), atoms.contiguous()
    selection = Selection(atom.data_ptr(), projection.data_ptr(), *atom.shape)
    if run("select", image_struct(images), dictionary_struct(atoms, None, None, stride), selection):
        check_images(images)
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
    code = ops.draw(atom, projection, norms, dead_zone, seed, image_ids, start, count, dropout_p, quantize, signed)
    check_image_ids(image_ids)
    check_selection(atom, norms.shape[0])
    atom, projection, image_ids = atom.contiguous(), projection.contiguous(), image_ids.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
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
    code = ops.encode(
        images, atoms, norms, dead_zone, seed, image_ids, stride, top_t, realization, dropout_p, quantize, signed
    )
    check_image_ids(image_ids)
    images, atoms, image_ids = images.contiguous(), atoms.contiguous(), image_ids.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
    draws = draw_struct(seed, image_ids, realization, dropout_p, quantize, signed)
    dictionary = dictionary_struct(atoms, norms, dead_zone, stride)
    if run("encode", image_struct(images), dictionary, draws, code_struct(*code)):
        check_images(images)
    return code


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
    grad_value, index, projection = grad_value.contiguous(), index.contiguous(), projection.contiguous()
    count = count.contiguous()
    atoms, norms, dead_zone = atoms.contiguous(), norms.contiguous(), dead_zone.contiguous()
    status = run(
        "encode_backward",
        grad_value.data_ptr(),
        code_struct(index, None, projection, count),
        dictionary_struct(atoms, norms, dead_zone, stride),
        Gradient(num_images, height, width, ops.SURROGATES.index(surrogate), quantize, signed, sigma),
        grad_images.data_ptr(),
    )
    refuse_bad_index(status, index, count, atoms.shape[0])
    return grad_images


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
    if top_t == len(atoms) and not quantize:  # neither a cut nor a dead zone
        check_images(images)
        return grad_images.zero_()
    grad_code, images, atoms = grad_code.contiguous(), images.contiguous(), atoms.contiguous()
    norms, dead_zone = norms.contiguous(), dead_zone.contiguous()
    dictionary = dictionary_struct(atoms, norms, dead_zone, stride)
    membership = Membership(grad_code.data_ptr(), *grad_code.shape[1:3], top_t, selection_width, quantize, signed)
    if run("selection_backward", image_struct(images), dictionary, membership, grad_images.data_ptr()):
        check_images(images)
    return grad_images
