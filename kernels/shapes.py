"""What every engine requires of its arguments, and the shapes that come out.

Each function here is named after an operation, is called at the start of its implementation in every engine and by
its fake (shape-only) version, and raises before any memory is touched. Values are checked apart (``check_*``), in
the engines only, since a fake tensor has none.
"""

import torch
from torch import Tensor

from .surrogates import SURROGATES

MAX_ATOMS = 32_767
RANGE_TOLERANCE = 1e-6
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def require_tensor(name: str, tensor: Tensor, dtype: torch.dtype, dims: int) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected {dtype}")
    require(tensor.dim() == dims, f"{name} has shape {tuple(tensor.shape)}, expected {dims} dimensions")


def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[int, int, int, int]:
    """(B, m_h, m_w, T)."""
    require_tensor("images", images, torch.float32, 4)
    require_tensor("atoms", atoms, torch.float32, 4)
    count, channels, patch, patch_w = atoms.shape
    require(patch == patch_w, f"atoms has shape {tuple(atoms.shape)}, expected square patches (L, C, n, n)")
    require(1 <= count <= MAX_ATOMS, f"atoms holds {count} atoms, expected 1 to {MAX_ATOMS}")
    require(stride >= 1, f"stride is {stride}, expected at least 1")
    require(1 <= top_t <= count, f"top_t is {top_t}, expected 1 to {count}, the number of atoms")
    require(
        images.shape[1] == channels, f"images has {images.shape[1]} channels, expected {channels} as the atoms have"
    )
    height, width = images.shape[2:]
    require(
        height >= patch and width >= patch,
        f"images are {height} x {width}, expected at least one patch, {patch} x {patch}",
    )
    return images.shape[0], (height - patch) // stride + 1, (width - patch) // stride + 1, top_t


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
) -> tuple[int, int, int, int]:
    """(count * B, m_h, m_w, T)."""
    require_tensor("atom", atom, torch.int16, 4)
    require_tensor("projection", projection, torch.float32, 4)
    require(
        atom.shape == projection.shape,
        f"projection has shape {tuple(projection.shape)}, expected {tuple(atom.shape)} as atom has",
    )
    check_levels(norms, dead_zone)
    check_randomness(seed, image_ids, start, count, dropout_p, atom.shape[0])
    return count * atom.shape[0], *atom.shape[1:]


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
) -> tuple[int, int, int, int]:
    """(B, m_h, m_w, T)."""
    shape = select(images, atoms, stride, top_t)
    check_levels(norms, dead_zone, atoms.shape[0])
    check_randomness(seed, image_ids, realization, 1, dropout_p, shape[0])
    return shape


def empty_code(like: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised index, value, projection and count for a code of this shape, on the device of ``like``."""
    return (
        like.new_empty(shape, dtype=torch.int16),
        like.new_empty(shape, dtype=torch.float32),
        like.new_empty(shape, dtype=torch.float32),
        like.new_empty(shape[:-1], dtype=torch.int32),
    )


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
) -> tuple[int, int, int, int]:
    """(images, C, height, width)."""
    require_tensor("grad_value", grad_value, torch.float32, 4)
    require_tensor("index", index, torch.int16, 4)
    require_tensor("projection", projection, torch.float32, 4)
    require_tensor("atoms", atoms, torch.float32, 4)
    require(
        grad_value.shape == index.shape == projection.shape,
        f"grad_value, index and projection have shapes {tuple(grad_value.shape)}, {tuple(index.shape)} and "
        f"{tuple(projection.shape)}, expected one shape",
    )
    check_levels(norms, dead_zone, atoms.shape[0])
    size_h, size_w = covered(atoms, stride, index.shape[1], index.shape[2])
    require(
        0 <= height - size_h < stride and 0 <= width - size_w < stride,
        f"an image of {height} x {width} does not give {index.shape[1]} x {index.shape[2]} patches",
    )
    require(images >= 0, f"images is {images}, expected at least 0")
    rows = index.shape[0]
    require(
        rows % images == 0 if images else rows == 0,
        f"the code has {rows} rows, expected a multiple of images, {images}",
    )
    require(surrogate in SURROGATES, f"surrogate is {surrogate!r}, expected one of {', '.join(SURROGATES)}")
    require(sigma > 0, f"sigma is {sigma}, expected above 0")
    return images, atoms.shape[1], height, width


def covered(atoms: Tensor, stride: int, patches_h: int, patches_w: int) -> tuple[int, int]:
    """Height and width of the part of an image that patches reach."""
    patch = atoms.shape[2]
    return (patches_h - 1) * stride + patch, (patches_w - 1) * stride + patch


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
    require_tensor("value", value, torch.float32, 4)
    require(
        value.shape == index.shape,
        f"value has shape {tuple(value.shape)}, expected {tuple(index.shape)} as index has",
    )
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
        (index.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i] + output_padding[i]
        for i in range(2)
    ]
    require(min(sizes) > 0, f"the output would be {sizes[0]} x {sizes[1]}, expected at least 1 x 1")
    return index.shape[0], weight.shape[1], sizes[0], sizes[1]


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
    for i in range(2):
        size = (index.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[2 + i]
        require(
            size <= grad_output.shape[2 + i] < size + stride[i],
            f"grad_output has shape {tuple(grad_output.shape)}, expected a dimension {2 + i} of {size} to "
            f"{size + stride[i] - 1}",
        )
    check_output(output, grad_output)


def check_code_and_weight(index: Tensor, count: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> None:
    require_tensor("index", index, torch.int16, 4)
    require_tensor("count", count, torch.int32, 3)
    require(
        count.shape == index.shape[:3],
        f"count has shape {tuple(count.shape)}, expected {tuple(index.shape[:3])} as index has",
    )
    require(weight.dim() == 4, f"weight has shape {tuple(weight.shape)}, expected 4 dimensions (L, C_out, k_h, k_w)")
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
    require(weight.shape[2:] == (3, 3), f"weight has shape {tuple(weight.shape)}, expected (C_in, C_out, 3, 3)")


def check_dense(name: str, tensor: Tensor, channels: int | None) -> None:
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected float32, bfloat16 or float16")
    require_tensor(name, tensor, tensor.dtype, 4)
    require(
        channels is None or tensor.shape[1] == channels,
        f"{name} has {tensor.shape[1]} channels, expected {channels} as the weight has",
    )
    require(min(tensor.shape[2:]) > 0, f"{name} is {tensor.shape[2]} x {tensor.shape[3]}, expected at least 1 x 1")


def check_output(output: Tensor | None, grad_output: Tensor) -> None:
    """The output of a fused ReLU beside its gradient."""
    if output is not None:
        require_tensor("output", output, grad_output.dtype, 4)
        require(
            output.shape == grad_output.shape,
            f"output has shape {tuple(output.shape)}, expected {tuple(grad_output.shape)} as grad_output has",
        )


def check_levels(norms: Tensor, dead_zone: Tensor, atoms: int | None = None) -> None:
    require_tensor("norms", norms, torch.float32, 1)
    require_tensor("dead_zone", dead_zone, torch.float32, 1)
    expected = norms.shape[0] if atoms is None else atoms
    require(
        norms.shape[0] == dead_zone.shape[0] == expected,
        f"norms and dead_zone hold {norms.shape[0]} and {dead_zone.shape[0]} numbers, expected {expected}, one each",
    )


def check_randomness(seed: Tensor, image_ids: Tensor, start: int, count: int, dropout_p: float, batch: int) -> None:
    if seed.dtype != torch.int64:
        raise TypeError(f"seed has dtype {seed.dtype}, expected torch.int64")
    require(seed.numel() == 1, f"seed holds {seed.numel()} numbers, expected 1")
    require_tensor("image_ids", image_ids, torch.int64, 1)
    require(image_ids.shape[0] == batch, f"image_ids holds {image_ids.shape[0]} ids, expected {batch}, one an image")
    require(count >= 0, f"count is {count}, expected at least 0")
    require(
        start >= 0 and start + count <= 2**32,
        f"realizations {start} to {start + count - 1} were asked for, expected numbers in [0, 2^32)",
    )
    require(0.0 <= dropout_p < 1.0, f"dropout_p is {dropout_p}, expected in [0, 1)")


def check_images(images: Tensor) -> None:
    """Refuses values outside [0, 1] and NaN. Reads the values, so it is skipped while a CUDA graph is captured."""
    if images.numel() == 0 or (images.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = torch.stack(images.aminmax()).tolist()
    check_range(low, high)


def check_range(low: float, high: float) -> None:
    """``low`` and ``high`` are the least and greatest pixel, NaN if any pixel is."""
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        hint = "; divide by 255" if high > 1.5 else ""
        raise ValueError(f"images holds values from {low:g} to {high:g}, expected pixels in [0, 1]{hint}")


def check_image_ids(image_ids: Tensor) -> None:
    """Refuses ids that do not fit the 32-bit counter word."""
    if image_ids.numel() == 0 or (image_ids.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = torch.stack(image_ids.aminmax()).tolist()
    require(low >= 0 and high < 2**32, f"image_ids holds numbers from {low} to {high}, expected them in [0, 2^32)")


def check_selected(atom: Tensor, atoms: int) -> None:
    """Refuses a selection of atoms that the dictionary does not have."""
    if atom.numel() == 0 or (atom.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = torch.stack(atom.aminmax()).tolist()
    require(low >= 0 and high < atoms, f"atom names atoms from {low} to {high}, expected them in [0, {atoms - 1}]")
