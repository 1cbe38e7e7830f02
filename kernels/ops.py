"""The operations as ``torch.ops.neuroae.*``: schemas, shape functions, and one implementation a dispatch key.

Two libraries share the schemas. ``neuroae`` serves CPU and CUDA tensors by the engine of that device and everything
else by the reference; ``neuroae_reference`` is the reference on any device (``backend="reference"``). Neither knows
of gradients: ``autograd.py`` wraps them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import OPERATIONS, conv_shapes, engine_name, load_engine, reference, shapes

SCHEMAS = {
    "select": "(Tensor images, Tensor atoms, int stride, int top_t) -> (Tensor, Tensor)",
    "draw": "(Tensor atom, Tensor projection, Tensor norms, Tensor dead_zone, Tensor seed, Tensor image_ids, "
    "SymInt start, SymInt count, float dropout_p, bool quantize, bool signed) -> (Tensor, Tensor, Tensor, Tensor)",
    "encode": "(Tensor images, Tensor atoms, Tensor norms, Tensor dead_zone, Tensor seed, Tensor image_ids, "
    "int stride, int top_t, SymInt realization, float dropout_p, bool quantize, bool signed) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    "encode_backward": "(Tensor grad_value, Tensor index, Tensor projection, Tensor atoms, Tensor norms, "
    "Tensor dead_zone, SymInt height, SymInt width, int stride, SymInt images, str surrogate, float sigma, "
    "bool quantize, bool signed) -> Tensor",
    "selection_backward": "(Tensor grad_code, Tensor images, Tensor atoms, Tensor norms, Tensor dead_zone, "
    "int stride, int top_t, float width, bool quantize, bool signed) -> Tensor",
    "conv_transpose": "(Tensor index, Tensor value, Tensor count, Tensor weight, Tensor? bias, int[2] stride, "
    "int[2] padding, int[2] output_padding, bool relu) -> Tensor",
    "conv_transpose_backward_value": "(Tensor grad_output, Tensor? output, Tensor index, Tensor count, "
    "Tensor weight, int[2] stride, int[2] padding) -> Tensor",
    "conv_transpose_backward_weight": "(Tensor grad_output, Tensor? output, Tensor index, Tensor value, "
    "Tensor count, Tensor weight, int[2] stride, int[2] padding) -> (Tensor, Tensor)",
    "dense_conv_transpose": "(Tensor input, Tensor weight, Tensor? bias, bool relu) -> Tensor",
    "dense_conv_transpose_backward_input": "(Tensor grad_output, Tensor? output, Tensor weight) -> Tensor",
    "dense_conv_transpose_backward_weight": "(Tensor grad_output, Tensor? output, Tensor input) -> (Tensor, Tensor)",
}


def fake_select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    shape = shapes.select(images, atoms, stride, top_t)
    return images.new_empty(shape, dtype=torch.int16), images.new_empty(shape)


def fake_draw(atom: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return shapes.empty_code(atom, shapes.draw(atom, *arguments[:-2]))


def fake_encode(images: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return shapes.empty_code(images, shapes.encode(images, *arguments[:-2]))


def fake_encode_backward(grad_value: Tensor, *arguments: Any) -> Tensor:
    return grad_value.new_empty(shapes.encode_backward(grad_value, *arguments[:-2]))


def fake_selection_backward(grad_code: Tensor, images: Tensor, *arguments: Any) -> Tensor:
    return images.new_empty(shapes.selection_backward(grad_code, images, *arguments[:-2]))


def fake_conv_transpose(index: Tensor, value: Tensor, count: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    shape = conv_shapes.conv_transpose(index, value, count, weight, *arguments[:-1])
    return empty_channels_last(weight, shape)


def fake_conv_transpose_backward_value(
    grad_output: Tensor, output: Tensor | None, index: Tensor, *arguments: Any
) -> Tensor:
    conv_shapes.conv_transpose_backward(grad_output, output, index, *arguments)
    return grad_output.new_empty(index.shape, dtype=torch.float32)


def fake_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, index: Tensor, value: Tensor, count: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    conv_shapes.check_value(value, index)
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, *rest)
    grad_weight = empty_channels_last(weight, weight.shape, torch.float32)
    return grad_weight, grad_weight.new_empty(weight.shape[1])


def fake_dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return empty_channels_last(input, conv_shapes.dense_conv_transpose(input, weight, bias))


def fake_dense_conv_transpose_backward_input(grad_output: Tensor, *arguments: Any) -> Tensor:
    shape = conv_shapes.dense_conv_transpose_backward_input(grad_output, *arguments)
    return empty_channels_last(grad_output, shape)


def fake_dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    shape = conv_shapes.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad_weight = empty_channels_last(input, shape, torch.float32)
    return grad_weight, grad_weight.new_empty(shape[1])


def empty_channels_last(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


FAKES: dict[str, Callable[..., Any]] = {
    "select": fake_select,
    "draw": fake_draw,
    "encode": fake_encode,
    "encode_backward": fake_encode_backward,
    "selection_backward": fake_selection_backward,
    "conv_transpose": fake_conv_transpose,
    "conv_transpose_backward_value": fake_conv_transpose_backward_value,
    "conv_transpose_backward_weight": fake_conv_transpose_backward_weight,
    "dense_conv_transpose": fake_dense_conv_transpose,
    "dense_conv_transpose_backward_input": fake_dense_conv_transpose_backward_input,
    "dense_conv_transpose_backward_weight": fake_dense_conv_transpose_backward_weight,
}


def on_one_device(operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, after a look at the devices of its tensors.

    PyTorch calls one implementation for all of them: pointers of another device would be followed, and beside a meta
    tensor the shape function would run and leave the result as the memory was.
    """

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        if len({value.device for value in arguments if isinstance(value, Tensor)}) > 1:
            names = inspect.signature(getattr(reference, operation)).parameters
            tensors = {name: t for name, t in zip(names, arguments, strict=True) if isinstance(t, Tensor)}
            places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
            raise ValueError(f"{operation} has {places}, expected all tensors on one device")
        return function(*arguments)

    return run


def on_engine(operation: str, device_type: str) -> Callable[..., Any]:
    """The operation on the engine of a device, which is loaded at the first call."""

    def run(*arguments: Any) -> Any:
        return getattr(load_engine(engine_name(device_type)), operation)(*arguments)

    return run


def register() -> list[torch.library.Library]:
    libraries = [torch.library.Library(name, "DEF") for name in ("neuroae", "neuroae_reference")]
    for library in libraries:
        for operation in OPERATIONS:
            library.define(operation + SCHEMAS[operation], tags=(torch.Tag.pt2_compliant_tag,))
            plain, fake = (
                on_one_device(operation, part) for part in (getattr(reference, operation), FAKES[operation])
            )
            library.impl(operation, plain, "CompositeExplicitAutograd")
            torch.library.register_fake(f"{library.ns}::{operation}", fake, lib=library)
    for operation in OPERATIONS:
        for device_type in ("cpu", "cuda"):
            run = on_one_device(operation, on_engine(operation, device_type))
            libraries[0].impl(operation, run, device_type.upper())
    return libraries


LIBRARIES = register()


def namespace(backend: str) -> Any:
    """The operations of a backend: ``torch.ops.neuroae`` or ``torch.ops.neuroae_reference``."""
    return torch.ops.neuroae_reference if backend == "reference" else torch.ops.neuroae
