"""The encoder's operations, forward and backward."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .declaration import operation, require, require_tensor

# Index, value, projection and count.
Code = tuple[Tensor, Tensor, Tensor, Tensor]

MAX_ATOMS = 32_767  # as many as an int16 index can number

# Substitutes for the quantizer's derivative in the backward pass (paper, section 8.3). With a the projection, norm the
# l1 norm of the atom, and dead_zone = beta * epsilon * norm:
#
# - identity: 1
# - smooth (eq. 9): norm / (2 sigma) * [sech^2((a - dead_zone) / sigma) + sech^2((a + dead_zone) / sigma)]
# - smooth-normalized (the published code): the same in units of norm,
#   1 / (2 sigma) * [sech^2((a - dead_zone) / (norm sigma)) + sech^2((a + dead_zone) / (norm sigma))]
#
# The C++ backend identifies a surrogate by its position in this tuple.
SURROGATES = ("identity", "smooth", "smooth-normalized")


@operation
def select(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[Tensor, Tensor]:
    """Selects the top T of each patch (section 2.2, step 1). Returns atoms and projections, (B, m_h, m_w, T) each."""
    shape = selection_shape(images, atoms, stride, top_t)
    return images.new_empty(shape, dtype=torch.int16), images.new_empty(shape)


@operation
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
    """Draws realizations start .. start + count - 1 of a selection (eqs. 2, 3). Returns a code of count * B rows."""
    require_tensor("atom", atom, torch.int16, 4)
    require_tensor("projection", projection, torch.float32, 4)
    require(
        atom.shape == projection.shape,
        "projection has shape {}, expected {} as atom has",
        projection.shape,
        atom.shape,
    )
    require_levels(norms, dead_zone, norms.shape[0])
    require_randomness(seed, image_ids, dropout_p, atom.shape[0])
    require(count >= 0, "count is {}, expected at least 0", count)
    require(
        start >= 0 and start + count <= 2**32,
        "start is {} and count is {}, expected realizations in [0, 2^32)",
        start,
        count,
    )
    return empty_code(atom, (count * atom.shape[0], *atom.shape[1:]))


@operation
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
    """Selects and draws one realization of the images in one pass. Returns a code of B rows."""
    shape = selection_shape(images, atoms, stride, top_t)
    require_levels(norms, dead_zone, atoms.shape[0])
    require_randomness(seed, image_ids, dropout_p, images.shape[0])
    require(0 <= realization < 2**32, "realization is {}, expected in [0, 2^32)", realization)
    return empty_code(images, shape)


@operation
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
    """Returns the gradient to the images through the survivors only, those in the dead zone included (section 4).

    Row k of the code belongs to image k % num_images. With ``num_images`` = rows each realization gets its own
    gradient, with ``num_images`` = B the gradients of all realizations are added up.

    Returns:
        (num_images, C, height, width) float32.
    """
    require_tensor("grad_value", grad_value, torch.float32, 4)
    require_tensor("projection", projection, torch.float32, 4)
    require_atoms(atoms)
    require_slots(index, count)
    require(
        grad_value.shape == index.shape == projection.shape,
        "grad_value, index and projection have shapes {}, {} and {}, expected the same shape",
        grad_value.shape,
        index.shape,
        projection.shape,
    )
    require_levels(norms, dead_zone, atoms.shape[0])
    covered_h, covered_w = covered_size(atoms, stride, index.shape[1], index.shape[2])
    require(
        0 <= height - covered_h < stride and 0 <= width - covered_w < stride,
        "an image of {} x {} does not give {} x {} patches",
        height,
        width,
        index.shape[1],
        index.shape[2],
    )
    require(num_images >= 0, "num_images is {}, expected at least 0", num_images)
    rows = index.shape[0]
    require(
        rows % num_images == 0 if num_images else rows == 0,
        "the code has {} rows, expected a multiple of num_images, {}",
        rows,
        num_images,
    )
    require(surrogate in SURROGATES, "surrogate is {!r}, expected one of {}", surrogate, ", ".join(SURROGATES))
    require(sigma > 0, "sigma is {}, expected above 0", sigma)
    return grad_value.new_empty(num_images, atoms.shape[1], height, width)


@operation
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
    """Returns the gradient to the images through membership in the top T.

    Args:
        grad_code: (B, m_h, m_w, L) float32, the gradient to all entries of the dense code, including atoms that
            were dropped or not selected.
        selection_width: The distance from the cut over which projections take part, above 0.

    Returns:
        (B, C, H, W) float32; 0 at pixels that no patch covers.
    """
    batch, patches_h, patches_w, _ = selection_shape(images, atoms, stride, top_t)
    require_levels(norms, dead_zone, atoms.shape[0])
    require_tensor("grad_code", grad_code, torch.float32, 4)
    expected = (batch, patches_h, patches_w, atoms.shape[0])
    require(
        grad_code.shape == expected,
        "grad_code has shape {}, expected {}, a number for each patch and atom",
        grad_code.shape,
        expected,
    )
    require(0 < selection_width < math.inf, "selection_width is {}, expected above 0 and finite", selection_width)
    return images.new_empty(images.shape)


def selection_shape(images: Tensor, atoms: Tensor, stride: int, top_t: int) -> tuple[int, int, int, int]:
    """Checks the arguments of ``select``, and returns the shape of its outputs, (B, m_h, m_w, T)."""
    require_tensor("images", images, torch.float32, 4)
    require_atoms(atoms)
    num_atoms, channels, patch, _ = atoms.shape
    require(1 <= num_atoms <= MAX_ATOMS, "atoms holds {} atoms, expected 1 to {}", num_atoms, MAX_ATOMS)
    require(stride >= 1, "stride is {}, expected at least 1", stride)
    require(1 <= top_t <= num_atoms, "top_t is {}, expected 1 to {}, the number of atoms", top_t, num_atoms)
    require(
        images.shape[1] == channels, "images has {} channels, expected {} as the atoms have", images.shape[1], channels
    )
    height, width = images.shape[2:]
    require(
        height >= patch and width >= patch,
        "images are {} x {}, expected at least one patch, {} x {}",
        height,
        width,
        patch,
        patch,
    )
    return images.shape[0], (height - patch) // stride + 1, (width - patch) // stride + 1, top_t


def empty_code(like: Tensor, shape: Sequence[int]) -> Code:
    """Returns an uninitialized code: ``shape`` is (rows, m_h, m_w, T), the device is that of ``like``."""
    value = like.new_empty(shape, dtype=torch.float32)
    index, count = like.new_empty(shape, dtype=torch.int16), like.new_empty(shape[:-1], dtype=torch.int32)
    # empty_like takes half the time of new_empty.
    return index, value, torch.empty_like(value), count


def used_slots(count: Tensor, num_slots: int) -> Tensor:
    """Returns which slots of a code hold survivors, (rows, m_h, m_w, num_slots) bool."""
    return torch.arange(num_slots, device=count.device) < count.unsqueeze(-1)


def covered_size(atoms: Tensor, stride: int, patches_h: int, patches_w: int) -> tuple[int, int]:
    """Returns height and width of the part of an image that patches cover."""
    patch = atoms.shape[2]
    return (patches_h - 1) * stride + patch, (patches_w - 1) * stride + patch


def require_atoms(atoms: Tensor) -> None:
    require_tensor("atoms", atoms, torch.float32, 4)
    shape = tuple(atoms.shape)
    require(
        shape[2] == shape[3] and min(shape[1:]) > 0, "atoms has shape {}, expected square patches (L, C, n, n)", shape
    )


def require_slots(index: Tensor, count: Tensor) -> None:
    require_tensor("index", index, torch.int16, 4)
    require(min(index.shape[1:]) > 0, "index has shape {}, expected at least one patch and one slot", index.shape)
    require_tensor("count", count, torch.int32, 3)
    require(
        count.shape == index.shape[:3], "count has shape {}, expected {} as index has", count.shape, index.shape[:3]
    )


def require_levels(norms: Tensor, dead_zone: Tensor, num_atoms: int) -> None:
    require_tensor("norms", norms, torch.float32, 1)
    require_tensor("dead_zone", dead_zone, torch.float32, 1)
    require(
        norms.shape[0] == dead_zone.shape[0] == num_atoms,
        "norms and dead_zone hold {} and {} numbers, expected {} each",
        norms.shape[0],
        dead_zone.shape[0],
        num_atoms,
    )


def require_randomness(seed: Tensor, image_ids: Tensor, dropout_p: float, batch: int) -> None:
    if seed.dtype != torch.int64:
        raise TypeError(f"seed has dtype {seed.dtype}, expected torch.int64")
    require(seed.numel() == 1, "seed holds {} numbers, expected 1", seed.numel())
    require_tensor("image_ids", image_ids, torch.int64, 1)
    require(
        image_ids.shape[0] == batch,
        "image_ids holds {} ids, expected {}, one for each image",
        image_ids.shape[0],
        batch,
    )
    require(0.0 <= dropout_p < 1.0, "dropout_p is {}, expected in [0, 1)", dropout_p)
