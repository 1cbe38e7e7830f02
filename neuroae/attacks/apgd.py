"""Auto-PGD (Croce and Hein, 2020, arXiv 2003.01690): the step size of each image follows its loss."""

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
) -> Perturbed:
    """Perturbs images so that the model's loss rises, by steps with momentum that are halved where the loss stalls.

    Every step draws fresh realizations, and the loss of a point is the mean over those that gave its gradient. So the
    highest loss on a random model may be a lucky draw, and leading every restart back to it would undo what the steps
    have won since. At checkpoints it is compared with the point at hand on draws that no gradient saw, and the better
    of them takes its place. In the end two points of each restart, that of the highest loss and the one that most
    fooled the vote of its realizations, are compared in the same way.

    Args are those of ``pgd``.
    """
    check_settings(settings, APGDSettings)
    restarts = Restarts(model, images, labels, settings, seed, image_ids, targets, judge, progress)
    ball = BALLS[settings.norm]

    def project(points: Tensor) -> Tensor:
        return ball.project(points, restarts.clean, settings.epsilon)

    with frozen(model):
        before = points = restarts.starts()
        estimate = restarts.gradient(points, 0)
        here = highest = Point(points, estimate.gradient, estimate.loss)
        fooled = Point(points, estimate.gradient, estimate.margin)
        sizes = StepSizes(settings, estimate.loss)
        for step in range(1, settings.steps + 1):
            points = project(here.images + sizes.now[:, None, None, None] * ball.direction(here.gradient))
            if step > 1:
                drift = here.images - before
                points = project(here.images + MOMENTUM * (points - here.images) + (1 - MOMENTUM) * drift)
            estimate = restarts.gradient(points, step)
            before, last = here.images, here.height
            here = Point(points, estimate.gradient, estimate.loss)
            highest = highest.replaced(here.height > highest.height, here)
            fooled = fooled.replaced(
                estimate.margin > fooled.height, Point(points, estimate.gradient, estimate.margin)
            )
            back = sizes.halved(step, here.height > last, highest.height)
            if settings.fresh and step in sizes.checkpoints:
                lucky = restarts.losses(here.images, step) > restarts.losses(highest.images, step)
                highest, back = highest.replaced(lucky, here), back & ~lucky
                sizes.highest = highest.height
            here = here.replaced(back, highest)
    return restarts.worst(highest.images, fooled.images)


class Point(NamedTuple):
    """
    Attributes:
        images: (rows, C, H, W).
        gradient: of the loss there.
        height: (rows,), what the point is valued by.
    """

    images: Tensor
    gradient: Tensor
    height: Tensor

    def replaced(self, where: Tensor, other: "Point") -> "Point":
        """The other point in the rows where that is asked."""
        images = where[:, None, None, None]
        return Point(
            torch.where(images, other.images, self.images),
            torch.where(images, other.gradient, self.gradient),
            torch.where(where, other.height, self.height),
        )


class StepSizes:
    """The step size of every row, looked at again at checkpoints.

    Attributes:
        now: (rows,)
    """

    def __init__(self, settings: APGDSettings, loss: Tensor) -> None:
        self.now = torch.full_like(loss, 2 * settings.epsilon)
        self.rho, self.checkpoints, self.last = settings.rho, checkpoints(settings.steps), 0
        self.rises, self.highest = torch.zeros_like(loss), loss
        self.just_halved = torch.zeros_like(loss, dtype=torch.bool)

    def halved(self, step: int, risen: Tensor, highest: Tensor) -> Tensor:
        """Which rows now go on from their best point with half the step, (rows,) bool.

        Those where too few steps since the last checkpoint raised the loss, and those whose highest loss has not
        risen since then although their step size had not been changed.
        """
        self.rises = self.rises + risen
        if step not in self.checkpoints:
            return torch.zeros_like(risen)
        oscillating = self.rises < self.rho * (step - self.last)
        stuck = ~self.just_halved & (highest == self.highest)
        self.just_halved = oscillating | stuck
        self.now = torch.where(self.just_halved, self.now / 2, self.now)
        self.last, self.rises, self.highest = step, torch.zeros_like(self.rises), highest
        return self.just_halved
