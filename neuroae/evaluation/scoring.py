"""How images are scored: in float32, on draws that no attack and no selection used."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import Perturbed, drawn_probabilities
from ..attacks.balls import BALLS
from ..attacks.losses import mean_margin
from ..attacks.protocol import batch_seed
from ..data import ImageSet
from ..nn.variants import FixedMasks
from ..utils.contexts import autocast
from ..utils.modules import takes_seeds
from ..utils.randomness import derive_seed
from ..utils.validation import check_integer
from .records import Record


@dataclass(frozen=True)
class Scoring:
    """The draws of an evaluation.

    Attributes:
        draws: E, the number of realizations that vote on an image (paper, eq. 8).
        seed: The seed of all draws. Crafting, selection and scoring use streams of their own.
        deterministic: Whether an image gets the same masks in every realization, in crafting and in scoring. For
            debugging: the results say nothing about the random model.

    Raises:
        TypeError: ``draws`` or ``seed`` is not an integer.
        ValueError: ``draws`` is below 1, or above 1 with ``deterministic``.
    """

    draws: int = 10
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_integer("draws", self.draws, 1)
        check_integer("seed", self.seed, -math.inf)  # NumPy's integers do not fit into the manifest
        if self.deterministic and self.draws != 1:
            raise ValueError(f"draws is {self.draws}, expected 1 where masks are fixed: all draws would be the same")


class Block(NamedTuple):
    """Consecutive clean images of an evaluation.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        ids: (B,) int64.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor

    @classmethod
    def of(cls, data: ImageSet, device: torch.device) -> "Block":
        """Returns all images of the data on the device."""
        return cls(data.pixels().to(device), data.labels.to(device), data.ids.to(device))


class Answers(NamedTuple):
    """The classes that the model gives to a block.

    Attributes:
        draws: (E, B) int64, the class of each single realization.
        vote: (B,) int64, the class with the largest mean softmax output (paper, eq. 8).
    """

    draws: Tensor
    vote: Tensor


def answers(model: nn.Module, images: Tensor, ids: Tensor, scoring: Scoring) -> Answers:
    """Returns the model's answers to (B, C, H, W) images in [0, 1], on the scoring draws.

    Raises:
        ValueError: A logit is NaN or infinite.
    """
    with autocast("float32", images.device):
        judge = with_fixed_masks(model, scoring, ids) if scoring.deterministic else model
        seed = batch_seed(model, derive_seed(scoring.seed, "scoring"), ids)
        each = list(drawn_probabilities(judge, images, scoring.draws, seed, ids))
    mean = sum(each[1:], each[0]) / len(each)
    broken = ~mean.isfinite().all(-1)
    if broken.any():
        raise ValueError(f"the model's logits for image {int(ids[broken][0])} are not finite")
    return Answers(torch.stack(each).argmax(-1), mean.argmax(-1))


def selection_margins(model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, scoring: Scoring) -> Tensor:
    """Returns (B,) margins of the vote on the selection draws (see ``mean_margin``): above 0 for a wrong answer."""
    with autocast("float32", images.device):
        judge = with_fixed_masks(model, scoring, ids) if scoring.deterministic else model
        seed = batch_seed(model, derive_seed(scoring.seed, "selection"), ids)
        return mean_margin(judge, images, labels, None, scoring.draws, seed, ids)


def with_fixed_masks(model: nn.Module, scoring: Scoring, ids: Tensor) -> nn.Module:
    """Returns the model with the same masks for an image in every call; a model without seeds stays unchanged."""
    return FixedMasks(model, derive_seed(scoring.seed, "fixed masks"), ids) if takes_seeds(model) else model


def judge(model: nn.Module, name: str, block: Block, perturbed: Perturbed, scoring: Scoring) -> list[Record]:
    """Scores a block under one attack.

    Args:
        model: The attacked model, in evaluation mode.
        name: The attack's name.
        block: The clean images.
        perturbed: The images under the attack, and what crafting them took.
        scoring: The draws of the evaluation.

    Returns:
        A record of each image, in the order of the block.
    """
    margins = selection_margins(model, perturbed.images, block.labels, block.ids, scoring)
    draws, vote = answers(model, perturbed.images, block.ids, scoring)
    norms = perturbation_norms(block.images, perturbed.images)
    columns = {
        "image": block.ids,
        "label": block.labels,
        "vote": vote,
        "selection": margins,
        "linf": norms["linf"],
        "l2": norms["l2"],
        "zero": perturbed.zero,
        "invalid": perturbed.invalid,
        **({"stage": perturbed.details["stage"]} if "stage" in perturbed.details else {}),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        Record(
            attack=name,
            draws=tuple(classes),
            gradients=perturbed.gradients,
            forwards=perturbed.forwards,
            **dict(zip(columns, row, strict=True)),
        )
        for classes, row in zip(draws.T.tolist(), rows, strict=True)
    ]


def perturbation_norms(images: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
    """Returns the norms of the perturbations, (B,) float64, by the name of the norm."""
    offsets = perturbed.double() - images.double()
    return {norm: ball.size(offsets) for norm, ball in BALLS.items()}
