"""Antithetic evolution strategy on the margin: it estimates a gradient from the model's answers alone.

Tramer et al. (2020, arXiv 2002.08347) broke k-winners-take-all in this way. Here every image has its own estimate,
both sides of a pair see the same draws of the model, and the estimate is of the margin of the vote.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed, random_uniform
from ..utils.validation import check_integer, check_number
from .balls import BALLS, NORMS, Norm, unit_l2
from .checks import check_choice, check_inputs, check_settings
from .losses import mean_margin
from .protocol import batch_seed
from .restarts import Perturbed
from .settings import check_epsilon


@dataclass(frozen=True)
class EvolutionSettings:
    """
    Attributes:
        epsilon: Radius of the ball.
        step_size: Of each step, in the norm.
        steps: Estimates, and steps along them.
        pairs: Antithetic pairs of answers in an estimate.
        sigma: Standard deviation of the differences, on the scale of pixels in [0, 1].
        coarseness: Differences are constant on squares of so many pixels: fewer numbers to estimate.
        draws: Realizations averaged in an answer, the same for both sides of a pair; 1 for a deterministic model.
        momentum: Share of the last direction that goes into the next.
        norm: "linf" or "l2".
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 30
    pairs: int = 20
    sigma: float = 4 / 255
    coarseness: int = 2
    draws: int = 1
    momentum: float = 0.75
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_epsilon(self.epsilon, self.norm)
        for name in ("steps", "pairs", "coarseness", "draws"):
            check_integer(name, getattr(self, name), 1)
        for name in ("step_size", "sigma"):
            check_number(name, getattr(self, name), lambda size: size > 0, "above 0")
        check_number("momentum", self.momentum, lambda share: 0 <= share < 1, "in [0, 1)")

    @property
    def gradients(self) -> int:
        return 0

    @property
    def forwards(self) -> int:
        """Forward passes an image: both sides of every pair, and the comparison after every step."""
        return self.steps * (2 * self.pairs + 2) * self.draws


def evolution(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: EvolutionSettings,
    *,
    seed: int,
    image_ids: Tensor,
    targets: Tensor | None = None,
    judge: nn.Module | None = None,
    start: Tensor | None = None,
    progress: Callable[[int], object] = int,
) -> Perturbed:
    """Perturbs images so that the vote of the model's realizations is fooled by the largest margin; no gradients.

    Args are those of ``pgd``; ``start`` (B, C, H, W) is where the search begins. The best point of an image is kept:
    after each step it is compared with the new one on fresh draws.
    """
    check_settings(settings, EvolutionSettings)
    check_inputs(model, images, labels, image_ids, targets)
    images, draws, ball = images.detach(), batch_seed(model, seed, image_ids), BALLS[settings.norm]
    points = images.clone() if start is None else start.detach()
    best, velocity = points, torch.zeros_like(images)

    def margins(candidates: Tensor, draw_seed: int) -> Tensor:
        # Whatever the caller's autocast: bfloat16 rounds away what a small difference changes.
        with autocast("float32", candidates.device):
            margin = mean_margin(model, candidates, labels, targets, settings.draws, draw_seed, image_ids)
        progress(settings.draws * len(images))
        return margin

    for step in range(settings.steps):
        slope = torch.zeros_like(images)
        for pair in range(settings.pairs):
            noise = coarse_noise(images, settings.coarseness, derive_seed(seed, "noise", step, pair), image_ids)
            shift, pair_seed = settings.sigma * noise, derive_seed(draws, "pair", step, pair)
            rise = margins((points + shift).clamp(0, 1), pair_seed) - margins((points - shift).clamp(0, 1), pair_seed)
            slope += rise.nan_to_num(0, 0, 0)[:, None, None, None] * noise
        velocity = settings.momentum * velocity + unit_l2(slope)
        points = ball.project(points + settings.step_size * ball.direction(velocity), images, settings.epsilon)
        compare = derive_seed(draws, "compare", step)
        better = margins(points, compare) > margins(best, compare)
        best = torch.where(better[:, None, None, None], points, best)
    none = torch.zeros_like(labels)
    return Perturbed(best, 0, settings.forwards, none, none)


def coarse_noise(images: Tensor, coarseness: int, seed: int, image_ids: Tensor) -> Tensor:
    """Normal deviates (B, C, H, W), the same on squares of ``coarseness`` pixels."""
    return torch.special.ndtri(coarse_uniform(images, coarseness, seed, image_ids).clamp(min=2**-25))


def coarse_uniform(images: Tensor, coarseness: int, seed: int, image_ids: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), (B, C, H, W), the same on squares of ``coarseness`` pixels."""
    _, channels, height, width = images.shape
    shape = (channels, -(-height // coarseness), -(-width // coarseness))
    numbers = random_uniform(seed, image_ids, shape)
    return numbers.repeat_interleave(coarseness, 2).repeat_interleave(coarseness, 3)[..., :height, :width]
