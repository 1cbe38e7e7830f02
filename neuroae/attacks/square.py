"""Square attack (Andriushchenko et al., 2020, arXiv 1912.00049): random search without gradients, linf and l2."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed, random_uniform
from .balls import BALLS, broadcast, norms_l2, project_l2, project_linf, unit_l2
from .checks import check_inputs, check_settings
from .losses import mean_margin
from .protocol import batch_seed
from .restarts import Perturbed, check_start
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
    start: Tensor | None = None,
) -> Perturbed:
    """Perturbs images by random search, without gradients, so that the margin of the vote rises.

    Starts with random vertical stripes (linf) or a grid of bumps (l2), or at ``start`` where that is better. Each
    query tries one random square, and keeps it where it raises ``mean_margin``. Both images, without and with the
    square, are evaluated on the same fresh realizations. A margin kept from an earlier query would be the best of many
    draws, at which the search would stall; and on common draws the difference has less noise than either margin. That
    costs two passes a draw; a deterministic model needs one (``SquareSettings.fresh``). The search goes on where an
    image fools the model, since the next draw may be right. Margins are computed in float32.

    Takes the arguments of ``pgd``, and returns and raises the same. ``progress`` is called with forward passes.
    ``judge`` has no effect, since there is one attempt.
    """
    check_settings(settings, SquareSettings)
    check_inputs(model, images, labels, image_ids, targets)
    images, draw_seed = images.detach(), batch_seed(model, seed, image_ids)
    begin, change = (add_stripes, add_square) if settings.norm == "linf" else (add_bumps, move_bump)

    def evaluate(points: Tensor, query_seed: int) -> Tensor:
        # Under the caller's autocast bfloat16 would round away the effect of a small square.
        with autocast("float32", points.device):
            values = mean_margin(model, points, labels, targets, settings.draws, query_seed, image_ids)
        progress(settings.draws * len(images))
        return values

    perturbed = begin(images, settings.epsilon, derive_seed(seed, "stripes"), image_ids)
    if start is not None:
        check_start(start, images)
        start_seed = derive_seed(draw_seed, "start")
        start = BALLS[settings.norm].project(start, images, settings.epsilon)
        is_better = evaluate(start, start_seed) > evaluate(perturbed, start_seed)
        perturbed = torch.where(is_better[:, None, None, None], start, perturbed)
    margins: Tensor | None = None
    for query in range(settings.queries):
        side = square_side(query, settings, *images.shape[2:])
        square_seed = derive_seed(seed, "square", query)
        candidates = change(perturbed, images, settings.epsilon, side, square_seed, image_ids)
        query_seed = derive_seed(draw_seed, "query", query)
        if margins is None or settings.fresh:
            margins = evaluate(perturbed, query_seed)
        new_margins = evaluate(candidates, query_seed)
        is_better = new_margins > margins
        perturbed = torch.where(is_better[:, None, None, None], candidates, perturbed)
        margins = torch.where(is_better, new_margins, margins)
    none = torch.zeros_like(labels)
    forwards = settings.forwards + (0 if start is None else 2 * settings.draws)
    return Perturbed(perturbed, settings.gradients, forwards, none, none)


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


def add_bumps(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """Adds a bump of a random sign in every channel to each tile of a 5 x 5 grid, of norm epsilon together."""
    _, channels, height, width = images.shape
    side = max(min(height, width) // 5, 1)
    down, across = -(-height // side), -(-width // side)
    signs = random_signs(random_uniform(seed, image_ids, (channels, down * across)))
    tile = bump(torch.arange(side).view(1, -1, 1), torch.arange(side).view(1, 1, -1), side)[0].to(images.device)
    tiled = tile.repeat(down, across)[:height, :width]
    signs = signs.view(len(images), channels, down, across)
    pattern = tiled * signs.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
    return project_l2(images + broadcast(epsilon / norms_l2(pattern), images) * pattern, images, epsilon)


def move_bump(perturbed: Tensor, images: Tensor, epsilon: float, side: int, seed: int, image_ids: Tensor) -> Tensor:
    """Takes the perturbation off one square, and spends what that and the budget leave on a bump in another."""
    _, channels, height, width = images.shape
    uniform = random_uniform(seed, image_ids, (channels + 5, 1, 1))
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    corners = [(uniform[:, i : i + 1] * (extent - side + 1)).long() for i, extent in enumerate((height, width) * 2)]
    offset = perturbed - images
    y, x = rows.view(1, 1, -1, 1) - corners[0], columns.view(1, 1, 1, -1) - corners[1]
    target = within(y, side) & within(x, side)
    source = within(rows.view(1, 1, -1, 1) - corners[2], side) & within(columns.view(1, 1, 1, -1) - corners[3], side)
    swap = uniform[:, 4:5] < 0.5
    shape = torch.where(swap, bump(x, y, side), bump(y, x, side))
    pattern = torch.where(target, shape, 0) * random_signs(uniform[:, 5:])
    mixed = unit_l2(torch.where(target, offset, 0)) + unit_l2(pattern)
    unused = (epsilon**2 - norms_l2(offset) ** 2).clamp(min=0)
    energy = (norms_l2(torch.where(target | source, offset, 0)) ** 2 + unused).sqrt()
    moved = torch.where(target | source, 0, offset) + broadcast(energy, images) * unit_l2(mixed)
    return project_l2(images + moved, images, epsilon)


def within(position: Tensor, side: int) -> Tensor:
    """Returns whether positions, counted from a square's corner, lie in the square."""
    return (position >= 0) & (position < side)


def bump(along: Tensor, across: Tensor, side: int) -> Tensor:
    """Returns two halves of opposite sign, each highest in its middle: sums of 1 / k^2 over a pixel's rectangles."""
    half = max(side // 2, 1)
    first = along < half
    middle = torch.where(first, (half - 1) / 2, half + (side - half - 1) / 2)
    # In a half, which is half as long as it is wide, distances along it count double.
    distance = torch.maximum(2 * (along - middle).abs(), (across - (side - 1) / 2).abs()).round().long()
    falling = (1 / torch.arange(1, side + 3, device=along.device, dtype=torch.float32) ** 2).flip(0).cumsum(0).flip(0)
    return falling[distance.clamp(0, side + 1)] * torch.where(first, 1, -1)
