"""Accuracy of a model in memory, clean or under one attack."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..contexts import repeatable
from ..data import ImageSet
from .attack import Attack, Perturbation
from .block import craft
from .evaluation import Evaluation
from .progress import Bar
from .scoring import Scoring, answers
from .statistics import Accuracy, Estimate, mean_over_draws


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the images under one attack, or without one.

    Attributes:
        name: of the attack, or "clean".
        images: (N, C, H, W) float32 in [0, 1], as they were scored.
        predictions: (N,) int64, of the E draws as one vote.
        draws: (E, N) int64, what each draw says by itself.
        labels: (N,) int64.
        seconds: crafting and scoring.
        passes: gradient passes, in images times realizations.
        zero, invalid: realizations without a usable gradient (see ``GradientEstimate``).
    """

    name: str
    images: Tensor
    predictions: Tensor
    draws: Tensor
    labels: Tensor
    seconds: float
    passes: int = 0
    zero: int = 0
    invalid: int = 0

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy.of(self.predictions, self.labels)

    @property
    def draw(self) -> Estimate:
        """Accuracy of one draw, E = 1: the mean over the draws, with a bootstrap over images."""
        return mean_over_draws(self.draws, self.labels)


def evaluate(
    model: nn.Module,
    data: ImageSet,
    attack: Attack | None = None,
    *,
    ensemble: int = 10,
    seed: int = 0,
    block: int = 64,
    title: str = "",
) -> Outcome:
    """Scores the model on the images as they are, or as an attack leaves them, and keeps nothing on disk.

    Images go in blocks of ``block`` in the order of the data. Scoring draws masks that no attack saw; for one seed
    they are the same with and without an attack.

    Args:
        model: images in [0, 1] to logits, in evaluation mode.
        data: the images.
        attack: None scores the clean images.
        ensemble: E, realizations that vote on an image (eq. 8).
        seed: of all draws.
        block: images in a batch.
        title: shown with the progress.
    """
    attacks: list[Perturbation] = [] if attack is None else [attack]
    evaluation = Evaluation(model, data, attacks, Scoring(ensemble, seed), block)
    chosen = evaluation.all_attacks[-1]
    images, said, passes, zero, invalid = [], [], 0, 0, 0
    started = time.perf_counter()
    with repeatable(), Bar(f"{title}: {chosen.name}" if title else chosen.name, chosen, len(data)) as bar:
        for number in range(evaluation.blocks):
            part = evaluation.load(number)
            found = craft(chosen, model, part, evaluation.scoring, bar.crafting)
            draws, vote = answers(model, found.images, part.ids, evaluation.scoring)
            bar.scored(len(vote), int((vote == part.labels).sum()))
            images.append(found.images.cpu())
            said.append(torch.cat([vote[None], draws]).cpu())
            passes += found.gradients * len(vote)
            zero += int(found.zero.sum())
            invalid += int(found.invalid.sum())
    seconds = time.perf_counter() - started
    votes, draws = torch.cat(said, 1).split([1, ensemble])
    return Outcome(chosen.name, torch.cat(images), votes[0], draws, data.labels, seconds, passes, zero, invalid)
