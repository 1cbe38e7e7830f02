"""The transposed convolutions, of a code and of a dense tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import conv_shapes
from .calls import code_struct, empty, pointer, refuse_bad_index, run
from .structures import Filters, Layer, Maps

DTYPES = {torch.float32: 0, torch.bfloat16: 1}


def layer_struct(
    weight: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    size: Sequence[int],
    relu: bool,
) -> Layer:
    """``dtype`` is that of the output and of its gradient; the weight's own where the engine reads it."""
    atoms, channels, kernel_h, kernel_w = weight.shape
    return Layer(
        weight.data_ptr(),
        pointer(bias),
        DTYPES[dtype],
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
    shape = conv_shapes.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding)
    index, value = index.contiguous(), value.contiguous()
    dtype, weight = weight.dtype, channels_last(weight)
    bias = None if bias is None else bias.float().contiguous()
    output = empty(shape, weight.dtype, torch.channels_last)
    layer = layer_struct(weight, weight.dtype, bias, stride, padding, shape[2:], relu)
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
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    index, weight, grad_output = index.contiguous(), channels_last(weight), channels_last(grad_output)
    output = None if output is None else channels_last(output)
    result = empty(index.shape)
    status = run(
        "conv_transpose_backward_value",
        grad_output.data_ptr(),
        pointer(output),
        code_struct(index, None, None, None),
        layer_struct(weight, weight.dtype, None, stride, padding, grad_output.shape[2:], False),
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
    conv_shapes.check_value(value, index)
    conv_shapes.conv_transpose_backward(grad_output, output, index, count, weight, stride, padding)
    index, value, grad_output = index.contiguous(), value.contiguous(), channels_last(grad_output)
    output = None if output is None else channels_last(output)
    grad_weight = empty(weight.shape, memory_format=torch.channels_last)
    grad_bias = empty(weight.shape[1:2])
    layer = layer_struct(weight, grad_output.dtype, None, stride, padding, grad_output.shape[2:], False)
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


# Products of rounded numbers are for gradients alone. In the output they would change what the rest of a network sees:
# images that the trained CIFAR-10 defense decodes would stray from float32's 2.8 times as far (root mean square) as
# those of PyTorch's own bfloat16 convolution, where float32 products stay as near.
def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    shape = conv_shapes.dense_conv_transpose(input, weight, bias)
    dtype, input, weight = input.dtype, channels_last(input), channels_last(weight)
    bias = None if bias is None else bias.contiguous()
    output = empty(shape, input.dtype, torch.channels_last)
    filters = Filters(weight.data_ptr(), pointer(bias), *weight.shape[:2], 2, True, relu, False)
    run("convolve", maps_struct(input, None), filters, output.data_ptr())
    return output.to(dtype)


def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    shape = conv_shapes.dense_conv_transpose_backward_input(grad_output, output, weight)
    dtype, grad_output = grad_output.dtype, channels_last(grad_output)
    output = None if output is None else channels_last(output)
    turned = channels_last(weight.transpose(0, 1))
    result = empty(shape, grad_output.dtype, torch.channels_last)
    filters = Filters(turned.data_ptr(), None, *turned.shape[:2], 0, False, False, True)
    run("convolve", maps_struct(grad_output, output), filters, result.data_ptr())
    return result.to(dtype)


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    shape = conv_shapes.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad_output, input = channels_last(grad_output), channels_last(input)
    output = None if output is None else channels_last(output)
    grad_weight, grad_bias = empty(shape, memory_format=torch.channels_last), empty(shape[1:2])
    moved, fixed = maps_struct(grad_output, output), maps_struct(input, None)
    run("convolve_backward_weight", moved, fixed, grad_weight.data_ptr(), grad_bias.data_ptr())
    return grad_weight, grad_bias
