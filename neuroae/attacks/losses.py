"""What an attack raises: losses of each image's own logits. With targets, the same for being taken for the target."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

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
