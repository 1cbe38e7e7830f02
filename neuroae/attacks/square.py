"""Square attack (Andriushchenko et al., 2020, arXiv 1912.00049) in l-infinity: random search without gradients."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed, random_uniform
from .balls import project_linf
from .checks import check_inputs, check_settings
from .losses import mean_margin
from .protocol import batch_seed
from .restarts import Perturbed
from .settings import SquareSettings

# In a search of 10,000 queries the area of the squares is halved after each of these.
SHRINK_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE_LENGTH = 10_000


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: SquareSettings,
    *,
    seed: int,
    image_ids: Tensor,
    targets: Tensor | None = None,
    judge: nn.Module | None = None,
    progress: Callable[[int], object] = int,
) -> Perturbed:
    """Perturbs images by random search, without gradients, so that the margin of the vote rises.

    Starts with random vertical stripes. Each query tries one random square, and keeps it where it raises
    ``mean_margin``. Both images, without and with the square, are evaluated on the same fresh realizations. A margin
    kept from an earlier query would be the best of many draws, at which the search would stall; and on common draws
    the difference has less noise than either margin. That costs two passes a draw; a deterministic model needs one
    (``SquareSettings.fresh``). The search goes on where an image fools the model, since the next draw may be right.
    Margins are computed in float32.

    Takes the arguments of ``pgd``, and returns and raises the same. ``progress`` is called with forward passes.
    ``judge`` has no effect, since there is one attempt.
    """
    check_settings(settings, SquareSettings)
    check_inputs(model, images, labels, image_ids, targets)
    images, draw_seed = images.detach(), batch_seed(model, seed, image_ids)
    perturbed = add_stripes(images, settings.epsilon, derive_seed(seed, "stripes"), image_ids)
    margins: Tensor | None = None
    for query in range(settings.queries):
        side = square_side(query, settings, *images.shape[2:])
        square_seed = derive_seed(seed, "square", query)
        candidates = add_square(perturbed, images, settings.epsilon, side, square_seed, image_ids)
        query_seed = derive_seed(draw_seed, "query", query)

        def evaluate(points: Tensor, query_seed: int = query_seed) -> Tensor:
            # Under the caller's autocast bfloat16 would round away the effect of a small square.
            with autocast("float32", points.device):
                values = mean_margin(model, points, labels, targets, settings.draws, query_seed, image_ids)
            progress(settings.draws * len(images))
            return values

        if margins is None or settings.fresh:
            margins = evaluate(perturbed)
        new_margins = evaluate(candidates)
        is_better = new_margins > margins
        perturbed = torch.where(is_better[:, None, None, None], candidates, perturbed)
        margins = torch.where(is_better, new_margins, margins)
    none = torch.zeros_like(labels)
    return Perturbed(perturbed, settings.gradients, settings.forwards, none, none)


def add_stripes(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """Makes each column of each channel epsilon brighter or darker."""
    _, channels, _, width = images.shape
    signs = random_signs(random_uniform(seed, image_ids, (channels, 1, width)))
    return project_linf(images + epsilon * signs, images, epsilon)


def add_square(perturbed: Tensor, images: Tensor, epsilon: float, side: int, seed: int, image_ids: Tensor) -> Tensor:
    """Adds a square at a random place of each image, in which each channel is epsilon above or below the clean one."""
    _, channels, height, width = images.shape
    uniform = random_uniform(seed, image_ids, (channels + 2, 1, 1))
    is_covered = window(uniform[:, :1], height, side).mT & window(uniform[:, 1:2], width, side)
    signs = random_signs(uniform[:, 2:])
    return project_linf(torch.where(is_covered, images + epsilon * signs, perturbed), images, epsilon)


def window(uniform: Tensor, length: int, side: int) -> Tensor:
    """Returns a random window of ``side`` neighbours in a line, as (B, 1, 1, length) bool."""
    first = (uniform * (length - side + 1)).long()
    position = torch.arange(length, device=uniform.device)
    return (position >= first) & (position < first + side)


def random_signs(uniform: Tensor) -> Tensor:
    """Returns +1 or -1 for each uniform number in [0, 1)."""
    return 1 - 2 * (uniform < 0.5).float()


def square_side(query: int, settings: SquareSettings, height: int, width: int) -> int:
    """Returns the side of a query's square, by the paper's schedule for 10,000 queries scaled to ``queries``."""
    position = query * SCHEDULE_LENGTH // settings.queries
    share = settings.p_init / 2 ** sum(position > limit for limit in SHRINK_AT)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)
