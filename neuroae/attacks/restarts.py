"""What attacks by gradients share: restarts as one batch, their gradients, and the worst attempt on each image."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed
from .balls import BALLS
from .checks import check_inputs, check_mode, highest_class
from .eot import GradientEstimate, estimated
from .losses import mean_loss, mean_margin
from .protocol import batch_seed
from .settings import GradientSettings, selection_draws


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


class Restarts:
    """All restarts of an attack as one batch: restart r of image b is row r * B + b.

    Attributes:
        clean: (restarts * B, C, H, W), the images that each row must stay near.
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
    ) -> None:
        check_inputs(model, images, labels, image_ids, targets)
        self.judge = model if judge is None else judge
        check_mode("judge", self.judge)
        self.draws = batch_seed(model, seed, image_ids)
        self.model, self.settings, self.seed, self.progress = model, settings, seed, progress
        self.images, self.labels, self.image_ids, self.targets = images.detach(), labels, image_ids, targets
        count = settings.restarts
        self.clean = self.images.repeat(count, 1, 1, 1)
        self.all_labels, self.all_ids = labels.repeat(count), image_ids.repeat(count)
        self.all_targets = None if targets is None else targets.repeat(count)
        self.highest = highest_class(labels, targets)
        self.zero, self.invalid = torch.zeros_like(labels), torch.zeros_like(labels)

    def starts(self) -> Tensor:
        """Where each row begins: at the image, or at a uniform point of the ball."""
        settings, random = self.settings, BALLS[self.settings.norm].random
        return torch.cat(
            [
                self.images
                if restart == 0 and not settings.random_start
                else random(self.images, settings.epsilon, derive_seed(self.seed, "start", restart), self.image_ids)
                for restart in range(settings.restarts)
            ]
        )

    def gradient(self, points: Tensor, step: int) -> GradientEstimate:
        """Of every row, on draws of this step that the restarts of an image share; the model is to be frozen."""
        settings = self.settings
        estimate = estimated(
            self.model,
            points,
            self.all_labels,
            self.all_targets,
            self.highest,
            realizations=settings.realizations,
            seed=derive_seed(self.draws, "attack", step),
            image_ids=self.all_ids,
            chunk=settings.chunk,
            average=settings.average,
            loss=settings.loss,
        )
        self.zero += self.attempts(estimate.zero).sum(0)
        self.invalid += self.attempts(estimate.invalid).sum(0)
        self.progress(len(points) * settings.realizations)
        return estimate

    def losses(self, points: Tensor, step: int) -> Tensor:
        """Of every row, (restarts * B,), on draws that no gradient saw and that all calls after a step share."""
        settings = self.settings
        with autocast("float32", points.device):
            return mean_loss(
                self.model,
                points,
                self.all_labels,
                self.all_targets,
                settings.loss,
                settings.realizations,
                derive_seed(self.draws, "checkpoint", step),
                self.all_ids,
            )

    def worst(self, *points: Tensor) -> Perturbed:
        """Of each image the worst of its rows in all the given batches, by the judge, on draws that no gradient saw.

        In float32, as images are scored, whatever the precision in which they were crafted.
        """
        settings = self.settings
        attempts = torch.cat([self.attempts(batch) for batch in points])
        found = attempts[0]
        if len(attempts) > 1:
            with autocast("float32", attempts.device):
                found = worst_attempts(
                    self.judge,
                    attempts,
                    self.labels,
                    self.targets,
                    selection_draws(settings),
                    derive_seed(batch_seed(self.judge, self.seed, self.image_ids), "selection"),
                    self.image_ids,
                )
        return Perturbed(found, settings.gradients, settings.forwards, self.zero, self.invalid)

    def attempts(self, rows: Tensor) -> Tensor:
        """(restarts, B, ...)"""
        return rows.unflatten(0, (self.settings.restarts, -1))
