"""What attacks give back, and the worst of several attempts on each image."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .prediction import mean_margin


class Perturbed(NamedTuple):
    """
    Attributes:
        images: (B, C, H, W) float32 in [0, 1], within epsilon of the clean ones.
        gradients: gradient passes (forward and backward) for each image, realizations counted one by one; those of
            ``variants.Ensemble`` are whole ensembles.
        forwards: passes for each image that were forward only.
        zero: (B,) int64, of the gradient passes those whose gradient was zero throughout.
        invalid: (B,) int64, those whose gradient held NaN or infinity.
    """

    images: Tensor
    gradients: int
    forwards: int
    zero: Tensor
    invalid: Tensor


def worst_attempts(
    model: nn.Module,
    attempts: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: int,
    seed: int,
    image_ids: Tensor,
) -> Tensor:
    """Of each image the attempt that comes nearest to its aim, by ``mean_margin``.

    Args:
        model: that is to be fooled.
        attempts: (restarts, B, C, H, W) in [0, 1].
        labels, targets: (B,) int64; see ``losses``.
        draws: realizations that are averaged, the same for all attempts, and seen by no gradient.
        seed: of these draws.
        image_ids: (B,) int64.

    Returns:
        (B, C, H, W); of equals the earliest.
    """
    reached = torch.stack([mean_margin(model, images, labels, targets, draws, seed, image_ids) for images in attempts])
    return attempts[reached.argmax(0), torch.arange(len(labels), device=labels.device)]
