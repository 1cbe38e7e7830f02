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
    after_step: Callable[[int, Tensor], object] | None = None,
) -> Perturbed:
    """Perturbs images so that the model's loss rises. Every step draws fresh realizations.

    Args:
        model: images in [0, 1] to logits, in evaluation mode. A ``Defense`` is given seeds and image ids; what
            another model draws from torch's generator is governed by ``seed`` too.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        settings: how long, how far, and by which loss.
        seed: of all draws of this attack.
        image_ids: (B,) int64, the images' numbers in the draws.
        targets: (B,) int64, classes to be taken for; None is untargeted.
        judge: the model that is to be fooled, where the attack is crafted on another: the worst restart of an image
            is that which most fools the judge. None is ``model``.
        progress: called after every step with the gradient passes that it took, in images times realizations.
        after_step: called with the number of steps that are done and the points, (restarts * B, C, H, W).

    Raises:
        TypeError, ValueError: an argument does not fit (see ``check_inputs``).
    """
    check_settings(settings, PGDSettings)
    restarts = Restarts(model, images, labels, settings, seed, image_ids, targets, judge, progress)
    ball = BALLS[settings.norm]
    points = restarts.starts()
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
