"""The common part of gradient attacks: restarts as one batch, their gradients, and the worst attempt on each image."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed
from .balls import BALLS
from .checks import check_inputs, check_mode
from .eot import GradientEstimate
from .losses import mean_loss, mean_margin
from .protocol import batch_seed
from .settings import GradientSettings, selection_draws
from .steps import StepGradients

NO_DETAILS: Mapping[str, Tensor] = MappingProxyType({})


class Perturbed(NamedTuple):
    """The result of an attack.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1], within epsilon of the clean images.
        gradients: The number of gradient passes (forward and backward) for each image. Each realization is one pass;
            a pass of ``nn.variants.Ensemble`` is a whole ensemble.
        forwards: The number of forward passes without a gradient for each image.
        zero: (B,) int64, the number of gradient passes whose gradient was zero everywhere.
        invalid: (B,) int64, the number of gradient passes whose gradient held NaN or infinity.
        details: What else is kept of each image, tensors (B, ...) by name; only suites keep any.
    """

    images: Tensor
    gradients: int
    forwards: int
    zero: Tensor
    invalid: Tensor
    details: Mapping[str, Tensor] = NO_DETAILS


class Restarts:
    """All restarts of an attack as one batch: restart r of image b is row r * B + b.

    Takes the arguments of ``pgd``.

    Attributes:
        clean: (restarts * B, C, H, W), the clean image of each row.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        settings: GradientSettings,
        seed: int,
        image_ids: Tensor,
        targets: Tensor | None,
        judge: nn.Module | None,
        progress: Callable[[int], object],
        start: Tensor | None = None,
        trace: list[Tensor] | None = None,
    ) -> None:
        if start is not None:
            check_start(start, images)
        self.start, self.trace = start, trace
        check_inputs(model, images, labels, image_ids, targets)
        self.judge = model if judge is None else judge
        check_mode("judge", self.judge)
        self.draw_seed = batch_seed(model, seed, image_ids)
        self.model, self.settings, self.seed, self.progress = model, settings, seed, progress
        self.images, self.labels, self.image_ids, self.targets = images.detach(), labels, image_ids, targets
        count = settings.restarts
        self.clean = self.images.repeat(count, 1, 1, 1)
        self.row_labels, self.row_ids = labels.repeat(count), image_ids.repeat(count)
        self.row_targets = None if targets is None else targets.repeat(count)
        self.estimate = StepGradients(
            model,
            self.row_labels,
            self.row_targets,
            self.row_ids,
            realizations=settings.realizations,
            chunk=settings.chunk,
            average=settings.average,
            loss=settings.loss,
        )
        self.zero, self.invalid = torch.zeros_like(labels), torch.zeros_like(labels)

    def start_points(self) -> Tensor:
        """Returns where each row starts: at the image or the starting point, or at a uniform point of the ball."""
        settings, random = self.settings, BALLS[self.settings.norm].random
        first = self.images
        if self.start is not None:
            first = BALLS[settings.norm].project(self.start.detach(), self.images, settings.epsilon)
        return torch.cat(
            [
                first
                if restart == 0 and (self.start is not None or not settings.random_start)
                else random(self.images, settings.epsilon, derive_seed(self.seed, "start", restart), self.image_ids)
                for restart in range(settings.restarts)
            ]
        )

    def gradient(self, points: Tensor, step: int) -> GradientEstimate:
        """Estimates the gradient at every row; the model must be frozen.

        Restarts of an image share the draws of a step.
        """
        estimate = self.estimate(points, derive_seed(self.draw_seed, "attack", step))
        self.zero += self.split(estimate.zero).sum(0)
        self.invalid += self.split(estimate.invalid).sum(0)
        self.progress(len(points) * self.settings.realizations)
        if self.trace is not None:
            self.trace.append(self.split(estimate.loss).amax(0))
        return estimate

    def losses(self, points: Tensor, step: int) -> Tensor:
        """Returns the loss of every row, (restarts * B,), on draws that were used in no gradient.

        All calls for a step share their draws.
        """
        settings = self.settings
        with autocast("float32", points.device):
            return mean_loss(
                self.model,
                points,
                self.row_labels,
                self.row_targets,
                settings.loss,
                settings.realizations,
                derive_seed(self.draw_seed, "checkpoint", step),
                self.row_ids,
            )

    def worst(self, *points: Tensor) -> Perturbed:
        """Returns for each image the worst of its rows in all batches of points, by the judge.

        The judge classifies with draws that were used in no gradient, and in float32, as in scoring, whatever the
        precision of the attack.
        """
        settings = self.settings
        attempts = torch.cat([self.split(batch) for batch in points])
        images = attempts[0]
        if len(attempts) > 1:
            with autocast("float32", attempts.device):
                images = worst_attempts(
                    self.judge,
                    attempts,
                    self.labels,
                    self.targets,
                    selection_draws(settings),
                    derive_seed(batch_seed(self.judge, self.seed, self.image_ids), "selection"),
                    self.image_ids,
                )
        return Perturbed(images, settings.gradients, settings.forwards, self.zero, self.invalid)

    def split(self, rows: Tensor) -> Tensor:
        """Returns rows (restarts * B, ...) as (restarts, B, ...)."""
        return rows.unflatten(0, (self.settings.restarts, -1))


def worst_attempts(
    model: nn.Module,
    attempts: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: int,
    seed: int,
    image_ids: Tensor,
) -> Tensor:
    """Returns for each image the attempt with the largest ``mean_margin``.

    Args:
        model: The model to fool.
        attempts: (attempts, B, C, H, W) in [0, 1].
        labels: (B,) int64.
        targets: (B,) int64, the target classes; None is untargeted.
        draws: The number of realizations to average. All attempts share them, and no gradient used them.
        seed: The seed of these draws.
        image_ids: (B,) int64, the images' numbers in the draws.

    Returns:
        (B, C, H, W); the first of attempts with equal margins.
    """
    margins = torch.stack([mean_margin(model, images, labels, targets, draws, seed, image_ids) for images in attempts])
    return attempts[margins.argmax(0), torch.arange(len(labels), device=labels.device)]


def check_start(start: Tensor, images: Tensor) -> None:
    """Checks that starting points have the shape and dtype of the images; raises ValueError otherwise."""
    if not isinstance(start, Tensor) or start.shape != images.shape or start.dtype != images.dtype:
        shape = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start is {shape}, expected {tuple(images.shape)} in {images.dtype}, as images are")
