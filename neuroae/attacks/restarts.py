"""What attacks by gradients share: restarts as one batch, their gradients, and the worst attempt on each image."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..contexts import autocast
from ..randomness import derive_seed
from .attempts import Perturbed, worst_attempts
from .balls import BALLS
from .checks import check_inputs, check_mode, highest_class
from .eot import GradientEstimate, estimated
from .prediction import mean_loss
from .realizations import batch_seed
from .settings import GradientSettings, selection_draws


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
