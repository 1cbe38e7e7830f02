"""Square attack (Andriushchenko et al., 2020, arXiv 1912.00049) in l-infinity: random search by answers alone."""

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

# The side of the squares shrinks after these queries of 10,000, by half in area each time.
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
    """Perturbs images so that the vote of the model's realizations is fooled by the largest margin; no gradients.

    Starts with random vertical stripes, and changes one square a query where that helps. Whether it helps is decided
    by ``mean_margin``. Each query draws fresh realizations and shows them both images, the perturbed one so far and
    the one with the new square: a value that was kept from an earlier query is the best of many draws, and the search
    would stall at a lucky one; and on common draws the difference is less noisy than either value. That costs two
    passes a draw; a model that draws nothing needs one (``SquareSettings.fresh``). A fooled image is not left alone,
    since the next draw may answer rightly. Answers are in float32.

    Args are those of ``pgd``. ``progress`` is told of forward passes. With one attempt, ``judge`` changes nothing.
    """
    check_settings(settings, SquareSettings)
    check_inputs(model, images, labels, image_ids, targets)
    images, draws = images.detach(), batch_seed(model, seed, image_ids)
    found = striped(images, settings.epsilon, derive_seed(seed, "stripes"), image_ids)
    kept: Tensor | None = None
    for query in range(settings.queries):
        side = square_side(query, settings, *images.shape[2:])
        tried = with_square(found, images, settings.epsilon, side, derive_seed(seed, "square", query), image_ids)
        masks = derive_seed(draws, "query", query)

        def margins(shown: Tensor, masks: int = masks) -> Tensor:
            # Whatever the caller's autocast: bfloat16 rounds away what a small square changes.
            with autocast("float32", shown.device):
                found = mean_margin(model, shown, labels, targets, settings.draws, masks, image_ids)
            progress(settings.draws * len(images))
            return found

        if kept is None or settings.fresh:
            kept = margins(found)
        reached = margins(tried)
        better = reached > kept
        found, kept = torch.where(better[:, None, None, None], tried, found), torch.where(better, reached, kept)
    none = torch.zeros_like(labels)
    return Perturbed(found, settings.gradients, settings.forwards, none, none)


def striped(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """Images with each column of each channel epsilon brighter or darker."""
    _, channels, _, width = images.shape
    signs = random_signs(random_uniform(seed, image_ids, (channels, 1, width)))
    return project_linf(images + epsilon * signs, images, epsilon)


def with_square(found: Tensor, images: Tensor, epsilon: float, side: int, seed: int, image_ids: Tensor) -> Tensor:
    """A square at a random place of each image, where each channel is epsilon brighter or darker than in the clean."""
    _, channels, height, width = images.shape
    uniform = random_uniform(seed, image_ids, (channels + 2, 1, 1))
    covered = window(uniform[:, :1], height, side).mT & window(uniform[:, 1:2], width, side)
    signs = random_signs(uniform[:, 2:])
    return project_linf(torch.where(covered, images + epsilon * signs, found), images, epsilon)


def window(uniform: Tensor, length: int, side: int) -> Tensor:
    """(B, 1, 1, length) bool: ``side`` neighbours, the first of which is drawn from all that leave room."""
    first = (uniform * (length - side + 1)).long()
    position = torch.arange(length, device=uniform.device)
    return (position >= first) & (position < first + side)


def random_signs(uniform: Tensor) -> Tensor:
    return 1 - 2 * (uniform < 0.5).float()


def square_side(query: int, settings: SquareSettings, height: int, width: int) -> int:
    """The paper's schedule for 10,000 queries, stretched to the number that there are."""
    place = query * SCHEDULE_LENGTH // settings.queries
    share = settings.p_init / 2 ** sum(place > at for at in SHRINK_AT)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)
