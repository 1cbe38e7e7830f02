"""Checks that read the values of tensors. Only backends call them: fake tensors have no values."""

import torch
from torch import Tensor

from .ops import require, used_slots

# Rounding may take pixels this far outside [0, 1].
RANGE_TOLERANCE = 1e-6


def is_unreadable(tensor: Tensor) -> bool:
    """Returns whether a tensor has no values, or they cannot be read because a CUDA graph is being captured."""
    return tensor.numel() == 0 or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def check_images(images: Tensor) -> None:
    """Raises ``ValueError`` for NaN and for pixels outside [0, 1]. Does nothing while a CUDA graph is captured."""
    if is_unreadable(images):
        return
    low, high = torch.stack(images.aminmax()).tolist()
    # NaN fails both comparisons.
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        hint = "; divide by 255" if high > 1.5 else ""
        raise ValueError(f"images holds values from {low:g} to {high:g}, expected pixels in [0, 1]{hint}")


def check_image_ids(image_ids: Tensor) -> None:
    """Raises ``ValueError`` for ids that do not fit a 32-bit word of Philox's counter."""
    if is_unreadable(image_ids):
        return
    low, high = torch.stack(image_ids.aminmax()).tolist()
    require(low >= 0 and high < 2**32, f"image_ids holds numbers from {low} to {high}, expected them in [0, 2^32)")


def check_selection(atom: Tensor, num_atoms: int) -> None:
    """Raises ``ValueError`` for a selection of atoms that the dictionary does not have."""
    if is_unreadable(atom):
        return
    low, high = torch.stack(atom.aminmax()).tolist()
    require(
        low >= 0 and high < num_atoms, f"atom names atoms from {low} to {high}, expected them in [0, {num_atoms - 1}]"
    )


def check_code(index: Tensor, count: Tensor, num_atoms: int) -> None:
    """Raises ``ValueError`` for a code whose survivors are atoms that the dictionary does not have."""
    if is_unreadable(index):
        return
    atoms = index.where(used_slots(count, index.shape[-1]), index.new_zeros(()))
    low, high = torch.stack(atoms.aminmax()).tolist()
    wrong = low if low < 0 else high
    require(0 <= wrong < num_atoms, f"index names atom {wrong}, expected 0 to {num_atoms - 1} in the used slots")
