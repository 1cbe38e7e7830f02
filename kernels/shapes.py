"""What the encoder's operations require of their arguments in every engine, and the shapes that come out.

Each function here (and in ``conv_shapes.py``) is named after an operation, is called at the start of its
implementation in every engine and by its fake (shape-only) version, and raises before any memory is touched. Values
are checked apart (``check_*``), in the engines only, since a fake tensor has none.
"""

import math

import torch
from torch import Tensor

from .surrogates import SURROGATES

MAX_ATOMS = 32_767
RANGE_TOLERANCE = 1e-6


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
    check_atoms(atoms)
    count, channels, patch, _ = atoms.shape
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
    require_tensor("projection", projection, torch.float32, 4)
    check_atoms(atoms)
    check_slots(index)
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


def selection_backward(
    grad_code: Tensor,
    images: Tensor,
    atoms: Tensor,
    norms: Tensor,
    dead_zone: Tensor,
    stride: int,
    top_t: int,
    width: float,
) -> tuple[int, ...]:
    """(B, C, H, W)."""
    batch, patches_h, patches_w, _ = select(images, atoms, stride, top_t)
    check_levels(norms, dead_zone, atoms.shape[0])
    require_tensor("grad_code", grad_code, torch.float32, 4)
    expected = (batch, patches_h, patches_w, atoms.shape[0])
    require(
        grad_code.shape == expected,
        f"grad_code has shape {tuple(grad_code.shape)}, expected {expected}, a number for each patch and atom",
    )
    require(0 < width < math.inf, f"width is {width}, expected above 0 and finite")
    return tuple(images.shape)


def covered(atoms: Tensor, stride: int, patches_h: int, patches_w: int) -> tuple[int, int]:
    """Height and width of the part of an image that patches reach."""
    patch = atoms.shape[2]
    return (patches_h - 1) * stride + patch, (patches_w - 1) * stride + patch


def check_atoms(atoms: Tensor) -> None:
    require_tensor("atoms", atoms, torch.float32, 4)
    shape = tuple(atoms.shape)
    require(
        shape[2] == shape[3] and min(shape[1:]) > 0, f"atoms has shape {shape}, expected square patches (L, C, n, n)"
    )


def check_slots(index: Tensor) -> None:
    require_tensor("index", index, torch.int16, 4)
    require(min(index.shape[1:]) > 0, f"index has shape {tuple(index.shape)}, expected a patch and a slot at least")


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


def unreadable(tensor: Tensor) -> bool:
    """Whether there are no values to check, or they cannot be read, as while a CUDA graph is captured."""
    return tensor.numel() == 0 or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def check_images(images: Tensor) -> None:
    """Refuses values outside [0, 1] and NaN. Reads the values, so it is skipped while a CUDA graph is captured."""
    if unreadable(images):
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
    if unreadable(image_ids):
        return
    low, high = torch.stack(image_ids.aminmax()).tolist()
    require(low >= 0 and high < 2**32, f"image_ids holds numbers from {low} to {high}, expected them in [0, 2^32)")


def check_selected(atom: Tensor, atoms: int) -> None:
    """Refuses a selection of atoms that the dictionary does not have."""
    if unreadable(atom):
        return
    low, high = torch.stack(atom.aminmax()).tolist()
    require(low >= 0 and high < atoms, f"atom names atoms from {low} to {high}, expected them in [0, {atoms - 1}]")
