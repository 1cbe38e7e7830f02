"""Auto-PGD, APGD (Croce and Hein, 2020, arXiv 2003.01690): PGD that adapts the step size to each image's loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..utils.contexts import frozen
from .balls import BALLS
from .checks import check_settings
from .restarts import Perturbed, Restarts
from .settings import APGDSettings, checkpoints

MOMENTUM = 0.75


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: APGDSettings,
    *,
    seed: int,
    image_ids: Tensor,
    targets: Tensor | None = None,
    judge: nn.Module | None = None,
    progress: Callable[[int], object] = int,
    start: Tensor | None = None,
    trace: list[Tensor] | None = None,
) -> Perturbed:
    """Perturbs images by steps with momentum that raise the model's loss, and halves steps where the loss stalls.

    Every step draws fresh realizations, and the loss of a point is the mean over the realizations of its gradient. On
    a random model the highest loss may therefore be a lucky draw, and going back to its point would undo the progress
    of later steps. At checkpoints the two points are compared on draws that no gradient used, and the better one
    becomes the best point. At the end two points of each restart are compared in the same way: the point with the
    highest loss, and the point with the largest margin of the vote.

    Takes the arguments of ``pgd``, and returns and raises the same.
    """
    check_settings(settings, APGDSettings)
    restarts = Restarts(model, images, labels, settings, seed, image_ids, targets, judge, progress, start, trace)
    ball = BALLS[settings.norm]

    def project(points: Tensor) -> Tensor:
        return ball.project(points, restarts.clean, settings.epsilon)

    with frozen(model):
        before = points = restarts.start_points()
        estimate = restarts.gradient(points, 0)
        here = highest = Point(points, estimate.gradient, estimate.loss)
        fooled = Point(points, estimate.gradient, estimate.margin)
        sizes = StepSizes(settings, estimate.loss)
        for step in range(1, settings.steps + 1):
            points = project(here.images + sizes.current[:, None, None, None] * ball.direction(here.gradient))
            if step > 1:
                drift = here.images - before
                points = project(here.images + MOMENTUM * (points - here.images) + (1 - MOMENTUM) * drift)
            estimate = restarts.gradient(points, step)
            before, last = here.images, here.height
            here = Point(points, estimate.gradient, estimate.loss)
            highest = highest.replace(here.height > highest.height, here)
            fooled = fooled.replace(estimate.margin > fooled.height, Point(points, estimate.gradient, estimate.margin))
            back = sizes.halve(step, here.height > last, highest.height)
            if settings.fresh and step in sizes.checkpoints:
                lucky = restarts.losses(here.images, step) > restarts.losses(highest.images, step)
                highest, back = highest.replace(lucky, here), back & ~lucky
                sizes.highest = highest.height
            here = here.replace(back, highest)
    return restarts.worst(highest.images, fooled.images)


class Point(NamedTuple):
    """A point of the attack in every row.

    Attributes:
        images: (rows, C, H, W).
        gradient: (rows, C, H, W), the gradient of the loss there.
        height: (rows,), the loss or margin by which points are compared.
    """

    images: Tensor
    gradient: Tensor
    height: Tensor

    def replace(self, where: Tensor, other: "Point") -> "Point":
        """Returns this point, with the other point in the rows where ``where`` is true."""
        images = where[:, None, None, None]
        return Point(
            torch.where(images, other.images, self.images),
            torch.where(images, other.gradient, self.gradient),
            torch.where(where, other.height, self.height),
        )


class StepSizes:
    """The step size of every row, which checkpoints may halve.

    Attributes:
        current: (rows,), the step sizes.
    """

    def __init__(self, settings: APGDSettings, loss: Tensor) -> None:
        self.current = torch.full_like(loss, 2 * settings.epsilon)
        self.rho, self.checkpoints, self.last = settings.rho, checkpoints(settings.steps), 0
        self.rises, self.highest = torch.zeros_like(loss), loss
        self.just_halved = torch.zeros_like(loss, dtype=torch.bool)

    def halve(self, step: int, has_risen: Tensor, highest: Tensor) -> Tensor:
        """Halves step sizes after a step that is a checkpoint.

        A row's step size is halved if too few steps since the last checkpoint raised its loss, or if its highest loss
        has not risen since then and the last checkpoint did not halve the step size.

        Args:
            step: The number of the step, from 1 on.
            has_risen: (rows,) bool, whether the step raised the loss.
            highest: (rows,), the highest loss so far.

        Returns:
            (rows,) bool, the rows that were halved. They go on from their best point.
        """
        self.rises = self.rises + has_risen
        if step not in self.checkpoints:
            return torch.zeros_like(has_risen)
        is_oscillating = self.rises < self.rho * (step - self.last)
        is_stuck = ~self.just_halved & (highest == self.highest)
        self.just_halved = is_oscillating | is_stuck
        self.current = torch.where(self.just_halved, self.current / 2, self.current)
        self.last, self.rises, self.highest = step, torch.zeros_like(self.rises), highest
        return self.just_halved
