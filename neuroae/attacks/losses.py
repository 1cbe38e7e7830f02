"""The losses that attacks raise, and the predictions of random models (paper, eq. 8)."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_logits, highest_class
from .protocol import realizations_at_once, realizer

LossName = Literal["cross-entropy", "margin", "dlr"]
LOSS_NAMES = get_args(LossName)

# A function of (logits, labels, targets) to one loss for each image.
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
SMALLEST_SPREAD = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Returns the cross-entropy with the true class, (B,); with targets, minus that with the target."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Returns the margin of the best other class over the true one (Carlini and Wagner, 2017), (B,).

    It is above 0 where the model is fooled. With targets, it is the margin of the target over the best other class.
    """
    if targets is None:
        return largest_other(logits, labels) - pick(logits, labels)
    return pick(logits, targets) - largest_other(logits, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Returns the difference of logits ratio (Croce and Hein, 2020), (B,): margin over spread of the largest logits.

    Raises:
        ValueError: ``logits`` has fewer than three classes, or fewer than four with targets.
    """
    num_largest = 3 if targets is None else 4
    if logits.shape[-1] < num_largest:
        raise ValueError(f"logits has {logits.shape[-1]} classes, expected at least {num_largest} for the loss 'dlr'")
    largest = logits.topk(num_largest, dim=-1).values
    if targets is None:
        return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + SMALLEST_SPREAD)
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return (pick(logits, targets) - pick(logits, labels)) / (spread + SMALLEST_SPREAD)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}


def drawn_probabilities(
    model: nn.Module, images: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Iterator[Tensor]:
    """Yields softmax outputs (B, classes) float32 of one realization after another.

    Args:
        model: The model, in evaluation mode.
        images: (B, C, H, W) float32 in [0, 1].
        draws: The number of realizations.
        seed: The seed of the draws.
        image_ids: (B,) int64, the images' numbers in the draws.

    Raises:
        ValueError: ``draws`` is below 1, or the model returns no logits (B, classes).
    """
    for logits in drawn_logits(model, images, draws, seed, image_ids):
        yield logits.softmax(-1)


def mean_probabilities(model: nn.Module, images: Tensor, ensemble: int, seed: int, image_ids: Tensor) -> Tensor:
    """Returns the mean softmax output over ``ensemble`` realizations (eq. 8), (B, classes) float32.

    Takes the arguments of ``drawn_probabilities``.
    """
    total: Tensor | None = None
    for probabilities in drawn_probabilities(model, images, ensemble, seed, image_ids):
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / ensemble


def mean_margin(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: int,
    seed: int,
    image_ids: Tensor,
) -> Tensor:
    """Returns the margin of the vote: that of the log of the mean softmax output over the draws, (B,) float32.

    It is above 0 where the vote is fooled. The logarithm distinguishes images that the model classifies with
    probabilities that round to 1; with one draw the result is the margin of the logits. Draws with NaN are left out;
    the result is minus infinity where all draws have NaN.

    Args:
        model, images, draws, seed, image_ids: As in ``drawn_probabilities``.
        labels: (B,) int64.
        targets: (B,) int64, the target classes; None is untargeted.
    """
    drawn = drawn_logits(model, images, draws, seed, image_ids)
    first = next(drawn)
    check_logits(first, len(images), highest_class(labels, targets))
    return vote_margin(sum_log_probabilities(chain([first], drawn)), labels, targets)


def mean_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    loss: LossName,
    draws: int,
    seed: int,
    image_ids: Tensor,
) -> Tensor:
    """Returns the mean loss over the draws, (B,) float32.

    Draws with NaN are left out; the result is minus infinity where all draws have NaN. The arguments are those of
    ``mean_margin``; ``loss`` is a key of ``LOSSES``.
    """
    logits_of_draws = drawn_logits(model, images, draws, seed, image_ids)
    mean = torch.stack([LOSSES[loss](logits, labels, targets) for logits in logits_of_draws]).nanmean(0)
    return torch.where(mean.isnan(), -torch.inf, mean)


def wrong_classes(
    model: nn.Module, images: Tensor, labels: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Tensor:
    """Returns (B, classes - 1) int64, the classes other than the label, by mean probability, largest first."""
    total = sum_log_probabilities(drawn_logits(model, images, draws, seed, image_ids))
    return total.scatter(-1, labels[:, None], -torch.inf).argsort(-1, descending=True)[:, :-1]


def drawn_logits(model: nn.Module, images: Tensor, draws: int, seed: int, image_ids: Tensor) -> Iterator[Tensor]:
    """Yields logits (B, classes) float32 of one realization after another, without a gradient.

    A model's own ``realizer`` shares work among them; of small batches several realizations are computed at once
    (``realizations_at_once``).
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    # No no_grad block contains a yield: there it would apply to the caller too.
    with torch.no_grad():
        realize = realizer(model, images, seed, image_ids)
    at_once = realizations_at_once(model, None, images.shape)
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        with torch.no_grad():
            logits = realize(first, count, images.repeat(count, 1, 1, 1)).float()
        check_logits(logits, count * len(images), 0)
        yield from logits.split(len(images))


def sum_log_probabilities(draws: Iterable[Tensor]) -> Tensor:
    """Returns the log of the sum of the softmax outputs of draws, at least one, from their logits (B, classes)."""
    log_sum: Tensor | None = None
    for logits in draws:
        log_sum = add_log_probabilities(log_sum, logits.log_softmax(-1))
    assert log_sum is not None
    return log_sum


def add_log_probabilities(log_sum: Tensor | None, log_probabilities: Tensor) -> Tensor:
    """Adds a draw's probabilities to a sum; both are given and returned as logarithms, (B, classes).

    Rows with NaN add nothing. None is the empty sum.
    """
    term = torch.where(log_probabilities.isnan().any(-1, keepdim=True), -torch.inf, log_probabilities)
    return term if log_sum is None else torch.logaddexp(log_sum, term)


def vote_margin(log_sum: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Returns the margin (B,) of a log of a sum of probabilities; minus infinity where no draw gave a number.

    The sum has the same margin as the mean.
    """
    values = margin(log_sum, labels, targets)
    return torch.where(values.isnan(), -torch.inf, values)


def pick(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the logit of each row's class, (B,)."""
    return logits.gather(-1, classes[:, None]).squeeze(-1)


def largest_other(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the largest logit of the classes other than each row's, (B,)."""
    is_class = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, classes[:, None], True)
    return logits.masked_fill(is_class, -torch.inf).amax(-1)
