"""What a model says, one realization at a time and averaged over them (paper, eq. 8)."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_logits, highest_class
from .protocol import realizations_at_once, realizer

LossName = Literal["cross-entropy", "margin", "dlr"]
LOSS_NAMES = get_args(LossName)

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
SMALLEST_SPREAD = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(B,) cross-entropy with the true class; with targets, minus that with the target."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(B,) how far the true class stays behind the best other one (Carlini and Wagner, 2017), above 0 where fooled.

    With targets, how far the target is ahead of the best other class.
    """
    if targets is None:
        return largest_other(logits, labels) - pick(logits, labels)
    return pick(logits, targets) - largest_other(logits, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(B,) difference of logits ratio (Croce and Hein, 2020): the margin over the spread of the largest logits.

    Raises:
        ValueError: there are fewer than three classes, or than four with targets.
    """
    needed = 3 if targets is None else 4
    if logits.shape[-1] < needed:
        raise ValueError(f"logits has {logits.shape[-1]} classes, expected at least {needed} for the loss 'dlr'")
    largest = logits.topk(needed, dim=-1).values
    if targets is None:
        return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + SMALLEST_SPREAD)
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return (pick(logits, targets) - pick(logits, labels)) / (spread + SMALLEST_SPREAD)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}


def pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(-1, classes[:, None]).squeeze(-1)


def largest_other(logits: Tensor, classes: Tensor) -> Tensor:
    own = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, classes[:, None], True)
    return logits.masked_fill(own, -torch.inf).amax(-1)


def drawn_logits(model: nn.Module, images: Tensor, draws: int, seed: int, image_ids: Tensor) -> Iterator[Tensor]:
    """Logits (B, classes) float32 of one realization after another; a ``Defense`` selects once for all.

    Of small batches several are computed at once (``realizations_at_once``).
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    # Not around a yield, where it would hold for the caller too.
    with torch.no_grad():
        realize = realizer(model, images, seed, image_ids)
    at_once = realizations_at_once(model, None, images.shape)
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        with torch.no_grad():
            logits = realize(first, count, images.repeat(count, 1, 1, 1)).float()
        check_logits(logits, count * len(images), 0)
        yield from logits.split(len(images))


def drawn_probabilities(
    model: nn.Module, images: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Iterator[Tensor]:
    """Softmax outputs (B, classes) float32 of one realization after another."""
    for logits in drawn_logits(model, images, draws, seed, image_ids):
        yield logits.softmax(-1)


def mean_probabilities(model: nn.Module, images: Tensor, ensemble: int, seed: int, image_ids: Tensor) -> Tensor:
    """Mean softmax output over ``ensemble`` realizations, (B, classes) float32."""
    drawn = drawn_probabilities(model, images, ensemble, seed, image_ids)
    total = next(drawn)
    for probabilities in drawn:
        total = total + probabilities
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
    """(B,) float32, margin of the log of the mean softmax output over the draws: above 0 where the vote is fooled.

    The logarithm tells images apart that are answered with a probability of 1 but for rounding; with one draw it is
    the margin of the logits. Draws that answer with NaN are left out; minus infinity where all do.
    """
    drawn = drawn_logits(model, images, draws, seed, image_ids)
    first = next(drawn)
    check_logits(first, len(images), highest_class(labels, targets))
    total = with_draw(None, first.log_softmax(-1))
    for logits in drawn:
        total = with_draw(total, logits.log_softmax(-1))
    return vote_margin(total, labels, targets)


def likeliest_wrong_class(
    model: nn.Module, images: Tensor, labels: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Tensor:
    """(B,) int64, the class other than the label to which the vote of ``draws`` realizations gives most."""
    with torch.no_grad():
        mean = mean_probabilities(model, images, draws, seed, image_ids)
    return mean.scatter(-1, labels[:, None], -1).argmax(-1)


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
    """(B,) float32, mean over the draws where it is not NaN, minus infinity where it always is."""
    drawn = drawn_logits(model, images, draws, seed, image_ids)
    mean = torch.stack([LOSSES[loss](logits, labels, targets) for logits in drawn]).nanmean(0)
    return torch.where(mean.isnan(), -torch.inf, mean)


def with_draw(total: Tensor | None, log_probabilities: Tensor) -> Tensor:
    """The log of a sum of softmax outputs, (B, classes), with those of one more draw; rows of NaN add nothing."""
    added = torch.where(log_probabilities.isnan().any(-1, keepdim=True), -torch.inf, log_probabilities)
    return added if total is None else torch.logaddexp(total, added)


def vote_margin(total: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """(B,), of a log of a sum as of a mean: minus infinity where no draw gave a number."""
    found = margin(total, labels, targets)
    return torch.where(found.isnan(), -torch.inf, found)
