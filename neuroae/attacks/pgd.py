"""Projected gradient ascent in an l-infinity ball (paper, eqs. 4 and 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..draws import random_uniform
from ..randomness import derive_seed
from .eot import AVERAGES, Average, eot_gradient
from .prediction import mean_probabilities


@dataclass(frozen=True)
class PGDSettings:
    """The paper's defaults (section 5.1), budgets on the scale of pixels in [0, 1].

    Attributes:
        epsilon: l-infinity budget.
        step_size: of each signed step.
        steps: N_S.
        restarts: N_R; the first starts at the image, the others at a uniform point of the ball. Each image keeps the
            restart that leaves its true class the least probable, on draws that no gradient saw.
        realizations: N_E, draws averaged in a gradient.
        average: how (see ``eot_gradient``).
        chunk: realizations in memory at a time.
    """

    epsilon: float = 8 / 255
    step_size: float = 1 / 225
    steps: int = 20
    restarts: int = 1
    realizations: int = 40
    average: Average = "normalized"
    chunk: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}, expected in [0, 1], on the scale of pixels in [0, 1]")
        if not self.step_size > 0:
            raise ValueError(f"step_size is {self.step_size}, expected above 0")
        for name in ("steps", "restarts", "realizations", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.average not in AVERAGES:
            raise ValueError(f"average is {self.average!r}, expected one of {', '.join(AVERAGES)}")

    @property
    def passes(self) -> int:
        """Gradient passes an image: N_S N_R N_E."""
        return self.steps * self.restarts * self.realizations


class Perturbed(NamedTuple):
    """
    Attributes:
        images: (B, C, H, W) float32 in [0, 1], within epsilon of the clean ones.
        passes: gradient passes, in images times realizations.
        zero, invalid: realizations without a usable gradient (see ``GradientEstimate``).
    """

    images: Tensor
    passes: int
    zero: int
    invalid: int


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: PGDSettings,
    *,
    seed: int,
    image_ids: Tensor,
    progress: Callable[[int], object] = int,
) -> Perturbed:
    """Perturbs images so that the model's cross-entropy rises. Every step and restart draws fresh realizations.

    Args:
        model: images in [0, 1] to logits, in evaluation mode. A ``Defense`` is given seeds and image ids; what
            another model draws from torch's generator is governed by ``seed`` too.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        seed: of all draws of this attack.
        image_ids: (B,) int64, the images' numbers in the draws.
        progress: called after every step with the gradient passes that it took.
    """
    attempts = [
        ascend(model, images, labels, settings, seed, image_ids, restart, progress)
        for restart in range(settings.restarts)
    ]
    if settings.restarts == 1:
        return attempts[0]
    best = least_probable(model, [attempt.images for attempt in attempts], labels, settings, seed, image_ids)
    return Perturbed(
        best,
        sum(attempt.passes for attempt in attempts),
        sum(attempt.zero for attempt in attempts),
        sum(attempt.invalid for attempt in attempts),
    )


def ascend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: PGDSettings,
    seed: int,
    image_ids: Tensor,
    restart: int,
    progress: Callable[[int], object],
) -> Perturbed:
    low = (images - settings.epsilon).clamp(0, 1)
    high = (images + settings.epsilon).clamp(0, 1)
    perturbed = images.clone()
    if restart > 0:
        noise = random_uniform(derive_seed(seed, "start", restart), image_ids, tuple(images.shape[1:]))
        perturbed = torch.clamp(images + settings.epsilon * (2 * noise - 1), low, high)
    passes = zero = invalid = 0
    for step in range(settings.steps):
        estimate = eot_gradient(
            model,
            perturbed,
            labels,
            realizations=settings.realizations,
            seed=derive_seed(seed, "attack", restart, step),
            image_ids=image_ids,
            chunk=settings.chunk,
            average=settings.average,
        )
        perturbed = torch.clamp(perturbed + settings.step_size * estimate.gradient.sign(), low, high)
        passes += estimate.passes
        zero += estimate.zero
        invalid += estimate.invalid
        progress(estimate.passes)
    return Perturbed(perturbed, passes, zero, invalid)


def least_probable(
    model: nn.Module, attempts: list[Tensor], labels: Tensor, settings: PGDSettings, seed: int, image_ids: Tensor
) -> Tensor:
    """Of each image the attempt that leaves its true class the least probable; of equals the earliest."""
    masks = derive_seed(seed, "selection")
    true_class = torch.stack(
        [
            mean_probabilities(model, attempt, settings.realizations, masks, image_ids)
            .gather(1, labels[:, None])
            .squeeze(1)
            for attempt in attempts
        ]
    )
    return torch.stack(attempts)[true_class.argmin(0), torch.arange(len(labels), device=labels.device)]
