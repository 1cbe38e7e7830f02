"""The C++ engine: the operations of ``reference.py`` on CPU tensors, on ``torch.get_num_threads()`` threads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import shapes
from ..philox import drop_threshold
from ..surrogates import SURROGATES
from .library import BAD_INDEX, instruction_set, library
from .structures import Code, Dictionary, Draws, Filters, Gradient, Images, Layer, Maps, Selection

__all__ = [
    "conv_transpose",
    "conv_transpose_backward_value",
    "conv_transpose_backward_weight",
    "dense_conv_transpose",
    "dense_conv_transpose_backward_input",
    "dense_conv_transpose_backward_weight",
    "draw",
    "encode",
    "encode_backward",
    "instruction_set",
    "library",
    "select",
]

DTYPES = {torch.float32: 0, torch.bfloat16: 1}


def run(operation: str, *arguments: object) -> int:
    """Calls the library; ctypes releases the interpreter lock meanwhile."""
    status: int = getattr(library(), f"neuroae_{operation}")(*arguments, torch.get_num_threads())
    return status


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def image_struct(images: Tensor) -> Images:
    tolerance = shapes.RANGE_TOLERANCE
    return Images(images.data_ptr(), *images.shape, -tolerance, 1 + tolerance)


def dictionary_struct(atoms: Tensor, norms: Tensor | None, dead_zone: Tensor | None, stride: int) -> Dictionary:
    count, channels, patch, _ = atoms.shape
    return Dictionary(atoms.data_ptr(), pointer(norms), pointer(dead_zone), count, channels, patch, stride)


def draw_struct(
    seed: Tensor, image_ids: Tensor, start: int, count: int, dropout_p: float, quantize: bool, signed: bool
) -> Draws:
    return Draws(image_ids.data_ptr(), int(seed), start, count, drop_threshold(dropout_p), quantize, signed)


def code_struct(index: Tensor, value: Tensor | None, projection: Tensor | None, count: Tensor | None) -> Code:
    return Code(pointer(index), pointer(value), pointer(projection), pointer(count), *index.shape)


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    shape = shapes.select(images, atoms, stride, top_t)
    images, atoms = images.contiguous(), atoms.contiguous()
    atom, projection = torch.empty(shape, dtype=torch.int16), torch.empty(shape)
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
        draw_struct(seed, image_ids, start, count, dropout_p, quantize, signed),
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
    draws = draw_struct(seed, image_ids, realization, 1, dropout_p, quantize, signed)
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
    result = torch.empty(shape)
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


def layer_struct(
    weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], size: Sequence[int], relu: bool
) -> Layer:
    atoms, channels, kernel_h, kernel_w = weight.shape
    return Layer(
        weight.data_ptr(),
        pointer(bias),
        DTYPES[weight.dtype],
        relu,
        atoms,
        channels,
        kernel_h,
        kernel_w,
        *stride,
        *padding,
        *size,
    )


def channels_last(tensor: Tensor) -> Tensor:
    """In the engine's memory order, and in a type that it computes with (float16 goes to float32)."""
    if tensor.dtype not in DTYPES:
        tensor = tensor.float()
    return tensor.contiguous(memory_format=torch.channels_last)


def conv_transpose(
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    relu: bool,
) -> Tensor:
    shape = shapes.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding)
    index, value = index.contiguous(), value.contiguous()
    dtype, weight = weight.dtype, channels_last(weight)
    bias = None if bias is None else bias.float().contiguous()
    output = torch.empty(shape, dtype=weight.dtype, memory_format=torch.channels_last)
    layer = layer_struct(weight, bias, stride, padding, shape[2:], relu)
    status = run("conv_transpose", code_struct(index, value, None, None), layer, output.data_ptr())
    refuse_bad_index(status, index, weight.shape[0])
    return output.to(dtype)


def conv_transpose_backward_value(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    index, weight, grad_output = index.contiguous(), channels_last(weight), channels_last(grad_output)
    output = None if output is None else channels_last(output)
    result = torch.empty(index.shape)
    status = run(
        "conv_transpose_backward_value",
        grad_output.data_ptr(),
        pointer(output),
        code_struct(index, None, None, None),
        layer_struct(weight, None, stride, padding, grad_output.shape[2:], False),
        result.data_ptr(),
    )
    refuse_bad_index(status, index, weight.shape[0])
    return result


def conv_transpose_backward_weight(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> tuple[Tensor, Tensor]:
    shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    index, value, grad_output = index.contiguous(), value.contiguous(), channels_last(grad_output)
    output = None if output is None else channels_last(output)
    grad_weight = torch.empty(weight.shape, memory_format=torch.channels_last)
    grad_bias = torch.empty(weight.shape[1])
    layer = layer_struct(channels_last(weight), None, stride, padding, grad_output.shape[2:], False)
    status = run(
        "conv_transpose_backward_weight",
        grad_output.data_ptr(),
        pointer(output),
        code_struct(index, value, None, None),
        layer,
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
    )
    refuse_bad_index(status, index, weight.shape[0])
    return grad_weight, grad_bias


def maps_struct(maps: Tensor, positive: Tensor | None) -> Maps:
    rows, channels, height, width = maps.shape
    return Maps(maps.data_ptr(), pointer(positive), DTYPES[maps.dtype], rows, height, width, channels)


def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    shape = shapes.dense_conv_transpose(input, weight, bias)
    dtype, input, weight = input.dtype, channels_last(input), channels_last(weight)
    bias = None if bias is None else bias.contiguous()
    output = torch.empty(shape, dtype=input.dtype, memory_format=torch.channels_last)
    filters = Filters(weight.data_ptr(), pointer(bias), *weight.shape[:2], 2, True, relu)
    run("convolve", maps_struct(input, None), filters, output.data_ptr())
    return output.to(dtype)


def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    shape = shapes.dense_conv_transpose_backward_input(grad_output, output, weight)
    dtype, grad_output = grad_output.dtype, channels_last(grad_output)
    output = None if output is None else channels_last(output)
    turned = channels_last(weight.transpose(0, 1))
    result = torch.empty(shape, dtype=grad_output.dtype, memory_format=torch.channels_last)
    filters = Filters(turned.data_ptr(), None, *turned.shape[:2], 0, False, False)
    run("convolve", maps_struct(grad_output, output), filters, result.data_ptr())
    return result.to(dtype)


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    shape = shapes.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad_output, input = channels_last(grad_output), channels_last(input)
    output = None if output is None else channels_last(output)
    grad_weight, grad_bias = torch.empty(shape, memory_format=torch.channels_last), torch.empty(shape[1])
    moved, fixed = maps_struct(grad_output, output), maps_struct(input, None)
    run("convolve_backward_weight", moved, fixed, grad_weight.data_ptr(), grad_bias.data_ptr())
    return grad_weight, grad_bias


def refuse_bad_index(status: int, index: Tensor, atoms: int) -> None:
    if status == BAD_INDEX:
        raise ValueError(f"index names atom {int(index.max())}, expected -1 to {atoms - 1}")
