"""Antithetic evolution strategy on the margin: it estimates a gradient from the model's answers alone.

Tramer et al. (2020, arXiv 2002.08347) broke k-winners-take-all in this way. Here every image has its own estimate,
both sides of a pair see the same draws of the model, and the estimate is of the margin of the vote.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed, random_uniform
from .balls import BALLS, unit_l2
from .checks import check_inputs, check_settings
from .losses import mean_margin
from .protocol import batch_seed
from .restarts import Perturbed, check_start
from .settings import EvolutionSettings


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
    """Perturbs images by steps along gradients that are estimated from answers, so that the margin of the vote rises.

    Keeps the best point of each image: after a step it is compared with the new point on fresh draws. Margins are
    computed in float32.

    Takes the arguments of ``pgd``, and returns and raises the same. ``progress`` is called with forward passes.
    ``judge`` has no effect, since there is one attempt.
    """
    check_settings(settings, EvolutionSettings)
    check_inputs(model, images, labels, image_ids, targets)
    images, draws, ball = images.detach(), batch_seed(model, seed, image_ids), BALLS[settings.norm]
    points = images.clone()
    if start is not None:
        check_start(start, images)
        points = ball.project(start.detach(), images, settings.epsilon)
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
    """Returns normal deviates (B, C, H, W), the same on squares of ``coarseness`` pixels."""
    return torch.special.ndtri(coarse_uniform(images, coarseness, seed, image_ids).clamp(min=2**-25))


def coarse_uniform(images: Tensor, coarseness: int, seed: int, image_ids: Tensor) -> Tensor:
    """Returns uniform numbers in [0, 1), (B, C, H, W), the same on squares of ``coarseness`` pixels."""
    _, channels, height, width = images.shape
    shape = (channels, -(-height // coarseness), -(-width // coarseness))
    numbers = random_uniform(seed, image_ids, shape)
    return numbers.repeat_interleave(coarseness, 2).repeat_interleave(coarseness, 3)[..., :height, :width]
