"""What the transposed convolutions require of their arguments in every engine, and the shapes that come out.

See ``shapes.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .shapes import check_slots, require, require_tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def conv_transpose(
    index: Tensor,
    value: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
) -> tuple[int, int, int, int]:
    """(rows, C_out, H, W)."""
    check_value(value, index)
    check_code_and_weight(index, count, weight, stride, padding)
    if bias is not None:
        require(
            bias.shape == weight.shape[1:2],
            f"bias has shape {tuple(bias.shape)}, expected ({weight.shape[1]},), a number for each output channel",
        )
        if bias.dtype != weight.dtype:
            raise TypeError(f"bias has dtype {bias.dtype}, expected {weight.dtype} as the weight has")
    require(
        all(0 <= extra < step for extra, step in zip(output_padding, stride, strict=True)),
        f"output_padding is {output_padding}, expected 0 to stride - 1, with stride {stride}",
    )
    sizes = [
        size + extra for size, extra in zip(least_output(index, weight, stride, padding), output_padding, strict=True)
    ]
    require(min(sizes) > 0, f"the output would be {sizes[0]} x {sizes[1]}, expected at least 1 x 1")
    return index.shape[0], weight.shape[1], sizes[0], sizes[1]


def check_value(value: Tensor, index: Tensor) -> None:
    require_tensor("value", value, torch.float32, 4)
    require(
        value.shape == index.shape,
        f"value has shape {tuple(value.shape)}, expected {tuple(index.shape)} as index has",
    )


def conv_transpose_backward(
    grad_output: Tensor,
    output: Tensor | None,
    index: Tensor,
    count: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
) -> None:
    check_code_and_weight(index, count, weight, stride, padding)
    require_tensor("grad_output", grad_output, weight.dtype, 4)
    require(
        grad_output.shape[:2] == (index.shape[0], weight.shape[1]),
        f"grad_output has shape {tuple(grad_output.shape)}, expected ({index.shape[0]}, {weight.shape[1]}, H, W)",
    )
    for i, size in enumerate(least_output(index, weight, stride, padding)):
        least, most = max(1, size), size + stride[i] - 1
        require(
            least <= grad_output.shape[2 + i] <= most,
            f"grad_output has shape {tuple(grad_output.shape)}, expected a dimension {2 + i} of {least} to {most}",
        )
    check_output(output, grad_output)


def least_output(index: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> list[int]:
    """Height and width of a transposed convolution's output without output_padding."""
    return [(index.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i] for i in range(2)]


def check_code_and_weight(index: Tensor, count: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> None:
    check_slots(index)
    require_tensor("count", count, torch.int32, 3)
    require(
        count.shape == index.shape[:3],
        f"count has shape {tuple(count.shape)}, expected {tuple(index.shape[:3])} as index has",
    )
    shape = tuple(weight.shape)
    require(
        weight.dim() == 4 and min(shape) > 0,
        f"weight has shape {shape}, expected 4 dimensions (L, C_out, k_h, k_w) of at least 1",
    )
    if weight.dtype not in FLOATS:
        raise TypeError(f"weight has dtype {weight.dtype}, expected float32, bfloat16 or float16")
    require(min(stride) >= 1, f"stride is {stride}, expected at least 1")
    require(min(padding) >= 0, f"padding is {padding}, expected at least 0")


def dense_conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, int, int, int]:
    """(rows, C_out, H + 2, W + 2)."""
    check_filters(weight)
    check_dense("input", input, weight.shape[0])
    if bias is not None:
        require_tensor("bias", bias, torch.float32, 1)
        require(
            bias.shape[0] == weight.shape[1],
            f"bias has shape {tuple(bias.shape)}, expected ({weight.shape[1]},), a number for each output channel",
        )
    return input.shape[0], weight.shape[1], input.shape[2] + 2, input.shape[3] + 2


def dense_conv_transpose_backward_input(
    grad_output: Tensor, output: Tensor | None, weight: Tensor
) -> tuple[int, int, int, int]:
    """(rows, C_in, H, W)."""
    check_filters(weight)
    check_dense("grad_output", grad_output, weight.shape[1])
    height, width = grad_output.shape[2:]
    require(min(height, width) > 2, f"grad_output is {height} x {width}, expected at least 3 x 3")
    check_output(output, grad_output)
    return grad_output.shape[0], weight.shape[0], height - 2, width - 2


def dense_conv_transpose_backward_weight(
    grad_output: Tensor, output: Tensor | None, input: Tensor
) -> tuple[int, int, int, int]:
    """(C_in, C_out, 3, 3)."""
    check_dense("input", input, None)
    check_dense("grad_output", grad_output, None)
    expected = (input.shape[0], grad_output.shape[1], input.shape[2] + 2, input.shape[3] + 2)
    require(
        grad_output.shape == expected,
        f"grad_output has shape {tuple(grad_output.shape)}, expected {expected} with an input of {tuple(input.shape)}",
    )
    require_tensor("grad_output", grad_output, input.dtype, 4)
    check_output(output, grad_output)
    return input.shape[1], grad_output.shape[1], 3, 3


def check_filters(weight: Tensor) -> None:
    require_tensor("weight", weight, torch.float32, 4)
    shape = tuple(weight.shape)
    require(
        shape[2:] == (3, 3) and min(shape[:2]) > 0,
        f"weight has shape {shape}, expected (C_in, C_out, 3, 3) with channels of both kinds",
    )


def check_dense(name: str, tensor: Tensor, channels: int | None) -> None:
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected float32, bfloat16 or float16")
    require_tensor(name, tensor, tensor.dtype, 4)
    require(
        channels is None or tensor.shape[1] == channels,
        f"{name} has {tensor.shape[1]} channels, expected {channels} as the weight has",
    )
    require(tensor.shape[1] > 0, f"{name} has no channels, expected at least 1")
    require(min(tensor.shape[2:]) > 0, f"{name} is {tensor.shape[2]} x {tensor.shape[3]}, expected at least 1 x 1")


def check_output(output: Tensor | None, grad_output: Tensor) -> None:
    """The output of a fused ReLU beside its gradient."""
    if output is not None:
        require_tensor("output", output, grad_output.dtype, 4)
        require(
            output.shape == grad_output.shape,
            f"output has shape {tuple(output.shape)}, expected {tuple(grad_output.shape)} as grad_output has",
        )
