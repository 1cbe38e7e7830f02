"""The transposed convolutions of a code and of a dense tensor.

The library computes with float32 and bfloat16, in channels_last memory. Tensors of float16 go through float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import ops
from .library import Filters, Layer, Maps, code_struct, pointer, refuse_bad_index, run

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
    """Returns the structure that describes a layer.

    Args:
        weight: (L, C_out, k_h, k_w). Where the library reads the values, they must have ``dtype``; the gradient to
            the weight needs only the shape.
        dtype: The dtype of the output and of its gradient.
        size: Height and width of the output.
    """
    num_atoms, channels, kernel_h, kernel_w = weight.shape
    return Layer(
        weight.data_ptr(),
        pointer(bias),
        DTYPES[dtype],
        relu,
        num_atoms,
        channels,
        kernel_h,
        kernel_w,
        *stride,
        *padding,
        *size,
    )


def maps_struct(maps: Tensor, positive: Tensor | None) -> Maps:
    rows, channels, height, width = maps.shape
    return Maps(maps.data_ptr(), pointer(positive), DTYPES[maps.dtype], rows, height, width, channels)


def to_library(tensor: Tensor) -> Tensor:
    """Returns the tensor in channels_last memory and in a dtype that the library computes with."""
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
    dtype = weight.dtype
    output = to_library(ops.conv_transpose(index, value, count, weight, bias, stride, padding, output_padding, relu))
    index, value, count, weight = index.contiguous(), value.contiguous(), count.contiguous(), to_library(weight)
    bias = None if bias is None else bias.float().contiguous()
    layer = layer_struct(weight, weight.dtype, bias, stride, padding, output.shape[2:], relu)
    status = run("conv_transpose", code_struct(index, value, None, count), layer, output.data_ptr())
    refuse_bad_index(status, index, count, weight.shape[0])
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
    grad_value = ops.conv_transpose_backward_value(grad_output, output, index, count, weight, stride, padding)
    index, count, weight = index.contiguous(), count.contiguous(), to_library(weight)
    grad_output = to_library(grad_output)
    output = None if output is None else to_library(output)
    status = run(
        "conv_transpose_backward_value",
        grad_output.data_ptr(),
        pointer(output),
        code_struct(index, None, None, count),
        layer_struct(weight, weight.dtype, None, stride, padding, grad_output.shape[2:], False),
        grad_value.data_ptr(),
    )
    refuse_bad_index(status, index, count, weight.shape[0])
    return grad_value


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
    grad_weight, grad_bias = ops.conv_transpose_backward_weight(
        grad_output, output, index, value, count, weight, stride, padding
    )
    index, value, count = index.contiguous(), value.contiguous(), count.contiguous()
    grad_output = to_library(grad_output)
    output = None if output is None else to_library(output)
    layer = layer_struct(weight, grad_output.dtype, None, stride, padding, grad_output.shape[2:], False)
    status = run(
        "conv_transpose_backward_weight",
        grad_output.data_ptr(),
        pointer(output),
        code_struct(index, value, None, count),
        layer,
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
    )
    refuse_bad_index(status, index, count, weight.shape[0])
    return grad_weight, grad_bias


# Only gradients use products of numbers rounded to bfloat16. In the forward pass such products would change the input
# of the following layers: the images that the trained CIFAR-10 defense decodes would differ from the float32 ones 2.8
# times as much (root mean square) as with PyTorch's bfloat16 convolution. With float32 products they differ as little.
def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    dtype = input.dtype
    output = to_library(ops.dense_conv_transpose(input, weight, bias, relu))
    input, weight = to_library(input), to_library(weight)
    bias = None if bias is None else bias.contiguous()
    filters = Filters(weight.data_ptr(), pointer(bias), *weight.shape[:2], 2, True, relu, False)
    run("convolve", maps_struct(input, None), filters, output.data_ptr())
    return output.to(dtype)


def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    dtype = grad_output.dtype
    grad_input = to_library(ops.dense_conv_transpose_backward_input(grad_output, output, weight))
    grad_output = to_library(grad_output)
    output = None if output is None else to_library(output)
    transposed = to_library(weight.transpose(0, 1))
    filters = Filters(transposed.data_ptr(), None, *transposed.shape[:2], 0, False, False, True)
    run("convolve", maps_struct(grad_output, output), filters, grad_input.data_ptr())
    return grad_input.to(dtype)


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    grad_weight, grad_bias = ops.dense_conv_transpose_backward_weight(grad_output, output, input)
    grad_output, input = to_library(grad_output), to_library(input)
    output = None if output is None else to_library(output)
    output_maps, input_maps = maps_struct(grad_output, output), maps_struct(input, None)
    run("convolve_backward_weight", output_maps, input_maps, grad_weight.data_ptr(), grad_bias.data_ptr())
    return grad_weight, grad_bias
