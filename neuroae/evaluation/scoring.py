"""How images are judged: by realizations that no attack and no selection saw, in float32."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import drawn_probabilities
from ..attacks.losses import mean_margin
from ..attacks.protocol import batch_seed
from ..data import ImageSet
from ..nn.variants import FixedMasks
from ..utils.contexts import autocast
from ..utils.modules import takes_seeds
from ..utils.randomness import derive_seed
from ..utils.validation import check_integer


@dataclass(frozen=True)
class Scoring:
    """What decides the draws of an evaluation.

    Attributes:
        draws: E, realizations that answer for an image and vote on it (eq. 8).
        seed: of all draws; crafting, selection and scoring have streams of their own.
        deterministic: each image has the same masks in every realization, in crafting and in scoring. For debugging:
            the results say nothing about the random model.
    """

    draws: int = 10
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_integer("draws", self.draws, 1)
        check_integer("seed", self.seed, -math.inf)  # manifests hold no integer of numpy
        if self.deterministic and self.draws != 1:
            raise ValueError(f"draws is {self.draws}, expected 1 where masks are fixed: all draws would be the same")


class Block(NamedTuple):
    """Consecutive images of an evaluation.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1], clean.
        labels, ids: (B,) int64.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor

    @classmethod
    def of(cls, data: ImageSet, device: torch.device) -> "Block":
        return cls(data.pixels().to(device), data.labels.to(device), data.ids.to(device))


class Answers(NamedTuple):
    """
    Attributes:
        draws: (E, B) int64, the class that each realization gives by itself.
        vote: (B,) int64, the class that the mean of their softmax outputs gives (eq. 8).
    """

    draws: Tensor
    vote: Tensor


def answers(model: nn.Module, images: Tensor, ids: Tensor, scoring: Scoring) -> Answers:
    """What the model says to (B, C, H, W) images in [0, 1], on the scoring draws.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    with autocast("float32", images.device):
        judge = fixed(model, scoring, ids) if scoring.deterministic else model
        seed = batch_seed(model, derive_seed(scoring.seed, "scoring"), ids)
        each = list(drawn_probabilities(judge, images, scoring.draws, seed, ids))
    mean = sum(each[1:], each[0]) / len(each)
    broken = ~mean.isfinite().all(-1)
    if broken.any():
        raise ValueError(f"the model's logits for image {int(ids[broken][0])} are not finite")
    return Answers(torch.stack(each).argmax(-1), mean.argmax(-1))


def selection_margins(model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, scoring: Scoring) -> Tensor:
    """(B,) margins of the vote on the selection draws (see ``mean_margin``), above 0 where the model is fooled."""
    with autocast("float32", images.device):
        judge = fixed(model, scoring, ids) if scoring.deterministic else model
        seed = batch_seed(model, derive_seed(scoring.seed, "selection"), ids)
        return mean_margin(judge, images, labels, None, scoring.draws, seed, ids)


def fixed(model: nn.Module, scoring: Scoring, ids: Tensor) -> nn.Module:
    """The model with the same masks for an image in every call; one that takes no seeds stays as it is."""
    return FixedMasks(model, derive_seed(scoring.seed, "fixed masks"), ids) if takes_seeds(model) else model
