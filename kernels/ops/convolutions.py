"""The transposed convolutions of a code and of a dense tensor, forward and backward."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .declaration import operation, require, require_tensor
from .encoder import require_slots

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@operation
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
    """Returns the transposed convolution of a code, after ReLU if ``relu`` is set.

    ``weight`` is (L, C_out, k_h, k_w) as in ``nn.ConvTranspose2d``, in float32, bfloat16 or float16.

    Returns:
        (rows, C_out, H, W) in the weight's dtype, channels_last, accumulated in float32.
    """
    require_value(value, index)
    require_code_and_weight(index, count, weight, stride, padding)
    if bias is not None:
        require_bias(bias, weight)
        if bias.dtype != weight.dtype:
            raise TypeError(f"bias has dtype {bias.dtype}, expected {weight.dtype} as the weight has")
    require(
        all(0 <= extra < step for extra, step in zip(output_padding, stride, strict=True)),
        "output_padding is {}, expected 0 to stride - 1, with stride {}",
        output_padding,
        stride,
    )
    minimum = minimum_output_size(index, weight, stride, padding)
    height, width = (size + extra for size, extra in zip(minimum, output_padding, strict=True))
    require(min(height, width) > 0, "the output would be {} x {}, expected at least 1 x 1", height, width)
    return empty_channels_last(weight, (index.shape[0], weight.shape[1], height, width))


@operation
def conv_transpose_backward_value(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> Tensor:
    """Returns the gradient to the code's values.

    ``output`` is the result of a fused ReLU, and the gradient passes where it is positive; None without a ReLU.

    Returns:
        (rows, m_h, m_w, T) float32; 0 in unused slots.
    """
    require_conv_gradient(grad_output, output, index, count, weight, stride, padding)
    return grad_output.new_empty(index.shape, dtype=torch.float32)


@operation
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
    """Returns the gradients to weight (channels_last) and bias, both float32.

    ``output`` is as in ``conv_transpose_backward_value``.
    """
    require_value(value, index)
    require_conv_gradient(grad_output, output, index, count, weight, stride, padding)
    grad_weight = empty_channels_last(weight, weight.shape, torch.float32)
    return grad_weight, grad_weight.new_empty(weight.shape[1])


def require_conv_gradient(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> None:
    require_code_and_weight(index, count, weight, stride, padding)
    require_tensor("grad_output", grad_output, weight.dtype, 4)
    require(
        grad_output.shape[:2] == (index.shape[0], weight.shape[1]),
        "grad_output has shape {}, expected ({}, {}, H, W)",
        grad_output.shape,
        index.shape[0],
        weight.shape[1],
    )
    for i, size in enumerate(minimum_output_size(index, weight, stride, padding)):
        least, most = max(1, size), size + stride[i] - 1
        require(
            least <= grad_output.shape[2 + i] <= most,
            "grad_output has shape {}, expected a dimension {} of {} to {}",
            grad_output.shape,
            2 + i,
            least,
            most,
        )
    require_relu_output(output, grad_output)


def minimum_output_size(index: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> list[int]:
    """Returns height and width of a transposed convolution's output without output_padding."""
    return [(index.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i] for i in range(2)]


def empty_channels_last(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


def require_value(value: Tensor, index: Tensor) -> None:
    require_tensor("value", value, torch.float32, 4)
    require(value.shape == index.shape, "value has shape {}, expected {} as index has", value.shape, index.shape)


def require_code_and_weight(
    index: Tensor, count: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> None:
    require_slots(index, count)
    shape = tuple(weight.shape)
    require(
        weight.dim() == 4 and min(shape) > 0,
        "weight has shape {}, expected 4 dimensions (L, C_out, k_h, k_w) of at least 1",
        shape,
    )
    require_float("weight", weight)
    require(min(stride) >= 1, "stride is {}, expected at least 1", stride)
    require(min(padding) >= 0, "padding is {}, expected at least 0", padding)


def require_bias(bias: Tensor, weight: Tensor) -> None:
    require(
        bias.shape == weight.shape[1:2],
        "bias has shape {}, expected ({},), a number for each output channel",
        bias.shape,
        weight.shape[1],
    )


def require_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected float32, bfloat16 or float16")


def require_relu_output(output: Tensor | None, grad_output: Tensor) -> None:
    """Requires the output of a fused ReLU, if there is one, to match its gradient."""
    if output is not None:
        require_tensor("output", output, grad_output.dtype, 4)
        require(
            output.shape == grad_output.shape,
            "output has shape {}, expected {} as grad_output has",
            output.shape,
            grad_output.shape,
        )


@operation
def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Returns the transposed convolution of a dense tensor, after ReLU if ``relu`` is set.

    ``weight`` (C_in, C_out, 3, 3) and ``bias`` are float32, ``input`` (rows, C_in, H, W) is any of ``FLOATS``.

    Returns:
        (rows, C_out, H + 2, W + 2) in the input's dtype, channels_last, accumulated in float32.
    """
    require_filters(weight)
    require_dense("input", input, weight.shape[0])
    if bias is not None:
        require_tensor("bias", bias, torch.float32, 1)
        require_bias(bias, weight)
    return empty_channels_last(input, (input.shape[0], weight.shape[1], input.shape[2] + 2, input.shape[3] + 2))


@operation
def dense_conv_transpose_backward_input(grad_output: Tensor, output: Tensor | None, weight: Tensor) -> Tensor:
    """Returns the gradient to the input, in the gradient's dtype, channels_last.

    ``output`` is the result of a fused ReLU, and the gradient passes where it is positive; None without a ReLU.
    """
    require_filters(weight)
    require_dense("grad_output", grad_output, weight.shape[1])
    height, width = grad_output.shape[2:]
    require(min(height, width) > 2, "grad_output is {} x {}, expected at least 3 x 3", height, width)
    require_relu_output(output, grad_output)
    return empty_channels_last(grad_output, (grad_output.shape[0], weight.shape[0], height - 2, width - 2))


@operation
def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients to weight (channels_last) and bias, both float32.

    ``output`` is as in ``dense_conv_transpose_backward_input``.
    """
    require_dense("input", input, None)
    require_dense("grad_output", grad_output, None)
    expected = (input.shape[0], grad_output.shape[1], input.shape[2] + 2, input.shape[3] + 2)
    require(
        grad_output.shape == expected,
        "grad_output has shape {}, expected {} with an input of {}",
        grad_output.shape,
        expected,
        input.shape,
    )
    require_tensor("grad_output", grad_output, input.dtype, 4)
    require_relu_output(output, grad_output)
    grad_weight = empty_channels_last(input, (input.shape[1], grad_output.shape[1], 3, 3), torch.float32)
    return grad_weight, grad_weight.new_empty(grad_output.shape[1])


def require_filters(weight: Tensor) -> None:
    require_tensor("weight", weight, torch.float32, 4)
    shape = tuple(weight.shape)
    require(
        shape[2:] == (3, 3) and min(shape[:2]) > 0,
        "weight has shape {}, expected (C_in, C_out, 3, 3) with at least one channel of each kind",
        shape,
    )


def require_dense(name: str, tensor: Tensor, channels: int | None) -> None:
    """Requires feature maps with this number of channels; with any number above 0 if ``channels`` is None."""
    require_float(name, tensor)
    require_tensor(name, tensor, tensor.dtype, 4)
    require(
        channels is None or tensor.shape[1] == channels,
        "{} has {} channels, expected {} as the weight has",
        name,
        tensor.shape[1],
        channels,
    )
    require(tensor.shape[1] > 0, "{} has no channels, expected at least 1", name)
    require(
        min(tensor.shape[2:]) > 0, "{} is {} x {}, expected at least 1 x 1", name, tensor.shape[2], tensor.shape[3]
    )
