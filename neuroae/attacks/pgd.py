"""Projected gradient ascent in a ball (paper, eqs. 4 and 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..utils.contexts import frozen
from .balls import BALLS, unit_l2
from .checks import check_settings
from .restarts import Perturbed, Restarts
from .settings import PGDSettings


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: PGDSettings,
    *,
    seed: int,
    image_ids: Tensor,
    targets: Tensor | None = None,
    judge: nn.Module | None = None,
    progress: Callable[[int], object] = int,
    start: Tensor | None = None,
    trace: list[Tensor] | None = None,
    after_step: Callable[[int, Tensor], object] | None = None,
) -> Perturbed:
    """Perturbs images by steps along the gradient that raise the model's loss. Every step draws fresh realizations.

    Args:
        model: The attacked model, from images in [0, 1] to logits, in evaluation mode. ``neuroae.attacks.protocol``
            says how its randomness is seeded.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        settings: Budget, steps, restarts, loss and average.
        seed: The seed of all draws of this attack.
        image_ids: (B,) int64, the images' numbers in the draws.
        targets: (B,) int64, the target classes; None is untargeted.
        judge: The model to fool, where the attack is crafted on another. It decides which restart of an image is the
            worst. None is ``model``.
        progress: Called after every step with its gradient passes, images times realizations.
        start: (B, C, H, W), where the first restart begins, projected into the ball; None is the image itself.
        trace: A list to which every step appends the losses, (B,), of each image's highest restart.
        after_step: Called after every step with its number, from 1 on, and the points, (restarts * B, C, H, W).

    Returns:
        The perturbed images, (B, C, H, W), and the passes that they took.

    Raises:
        TypeError, ValueError: An argument does not fit (see ``check_inputs``).
        RuntimeError: ``torch.inference_mode`` is on, under which there are no gradients.
    """
    check_settings(settings, PGDSettings)
    restarts = Restarts(model, images, labels, settings, seed, image_ids, targets, judge, progress, start, trace)
    ball = BALLS[settings.norm]
    points = restarts.start_points()
    velocity = torch.zeros_like(points)
    with frozen(model):
        for step in range(settings.steps):
            gradient = restarts.gradient(points, step).gradient
            if settings.momentum:
                gradient = velocity = settings.momentum * velocity + unit_l2(gradient)
            rise = settings.size_of_step(step) * ball.direction(gradient)
            points = ball.project(points + rise, restarts.clean, settings.epsilon)
            if after_step is not None:
                after_step(step + 1, points)
    return restarts.worst(points)
