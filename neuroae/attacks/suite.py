"""The standard suite: one attack without parameters for any model, deterministic, random or without gradients.

A cascade of stages (``stages``). Each works on the images that still stand, begins at the image or at the best attempt
so far, and is judged on draws of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed
from .apgd import apgd
from .bpda import LogProbabilities
from .checks import check_inputs
from .evolution import evolution
from .losses import drawn_logits, pick, sum_log_probabilities, vote_margin, wrong_classes
from .pgd import pgd
from .protocol import batch_seed
from .restarts import Perturbed
from .settings import APGDSettings, EvolutionSettings, PGDSettings, SquareSettings
from .square import square
from .stages import Stage

METHODS: dict[type, Callable[..., Perturbed]] = {
    PGDSettings: pgd,
    APGDSettings: apgd,
    SquareSettings: square,
    EvolutionSettings: evolution,
}
# An image leaves the cascade when the vote is against its label by more standard errors of a scoring vote than this.
ERRORS_BEYOND_LUCK = 2.0
CLEAN = "clean"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the cascade did to a batch of images.

    Attributes:
        perturbed: The worst attempt on each image, with the most passes that an image took.
        margins: (stages + 1, B) float32, the margin of the best attempt on selection draws, of the clean image first;
            above 0 where the vote is against the label.
        stage: (B,) int64, the number of the stage after which the image left the cascade, from 1 on; 0 if the clean
            image left it, -1 if the image stands.
        gradients, forwards: (stages, B) int64, passes that each stage took on each image.
        losses: The losses of each gradient stage by its name, (steps, B) float32; NaN for images that had left.
    """

    perturbed: Perturbed
    margins: Tensor
    stage: Tensor
    gradients: Tensor
    forwards: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Vote(NamedTuple):
    """What realizations of the model say to images: the margin of their vote, and whether it is beyond luck.

    Attributes:
        margin: (B,) float32, the margin of the log of the mean softmax output: above 0 if the vote is against the
            label.
        fooled: (B,) bool, whether it is against the label by more than ``ERRORS_BEYOND_LUCK`` standard errors of a
            scoring vote.
    """

    margin: Tensor
    fooled: Tensor

    @classmethod
    def of(cls, logits: Sequence[Tensor], labels: Tensor, scoring_draws: int) -> "Vote":
        """Counts the vote of realizations by their logits (B, classes), with the bound for this many scoring draws."""
        margin = vote_margin(sum_log_probabilities(logits), labels, None)
        probabilities = torch.stack([each.softmax(-1) for each in logits])
        rivals = probabilities.mean(0).scatter(-1, labels[:, None], -1).argmax(-1)
        leads = torch.stack([pick(each, rivals) - pick(each, labels) for each in probabilities])
        error = leads.std(0) / scoring_draws**0.5 if len(leads) > 1 else torch.zeros_like(margin)
        return cls(margin, (margin > 0) & ~(leads.mean(0) < ERRORS_BEYOND_LUCK * error))


def run_suite(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    stages: Sequence[Stage],
    *,
    seed: int,
    image_ids: Tensor,
    draws: int,
    scoring_draws: int,
    probabilities: bool = False,
    progress: Callable[[int], object] = int,
) -> Outcome:
    """Runs the cascade on a batch of images.

    Args:
        model: The model to fool, in evaluation mode.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        stages: From ``suite_stages``.
        seed: The seed of all draws.
        image_ids: (B,) int64, the images' numbers in the draws.
        draws: Realizations that judge an attempt; 1 for a deterministic model.
        scoring_draws: Realizations of the vote that gives the verdict. Its standard error sets the bound beyond which
            an image leaves the cascade.
        probabilities: Whether the model answers with probabilities.
        progress: Called with passes, in images times realizations.

    Raises:
        TypeError, ValueError: An argument does not fit (see ``check_inputs``).
    """
    check_inputs(model, images, labels, image_ids)
    judge = LogProbabilities(model) if probabilities else model
    images = images.detach()

    def vote(shown: Tensor, rows: Tensor, name: str) -> Vote:
        judged = derive_seed(batch_seed(model, seed, image_ids[rows]), f"suite {name}")
        with autocast("float32", shown.device):
            logits = list(drawn_logits(judge, shown, draws, judged, image_ids[rows]))
        return Vote.of(logits, labels[rows], scoring_draws)

    everything = torch.arange(len(images), device=images.device)
    first = vote(images, everything, CLEAN)
    best, margin = images.clone(), first.margin.clone()
    left = torch.where(first.fooled, 0, -1)
    order = wrong_classes(
        judge, images, labels, draws, derive_seed(batch_seed(model, seed, image_ids), "targets"), image_ids
    )
    shape = (len(stages), len(images))
    gradients, forwards = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    zero, invalid = torch.zeros_like(labels), torch.zeros_like(labels)
    margins, losses = [margin.clone()], {}
    # Images that leave take no passes of later stages, which count as made.
    remaining = [sum(stage.passes for stage in stages[number:]) for number in range(len(stages) + 1)]
    progress(remaining[0] * int((left == 0).sum()))
    for number, stage in enumerate(stages):
        rows = (left < 0).nonzero().flatten()
        if len(rows) and not stage.skipped and stage.target <= order.shape[1]:
            attempt, trace = run_stage(stage, model, images, labels, best, rows, order, seed, image_ids, progress)
            shown = attempt.images.float().clamp(0, 1)
            new = vote(shown, rows, stage.name)
            # A deterministic model would answer as before: the image stands.
            old = vote(best[rows], rows, stage.name) if draws > 1 else Vote(margin[rows], torch.zeros_like(rows) > 0)
            better = new.margin > old.margin
            margin[rows] = torch.where(better, new.margin, old.margin)
            best[rows[better]] = shown[better]
            left[rows[torch.where(better, new.fooled, old.fooled)]] = number + 1
            progress(remaining[number + 1] * int((left[rows] > 0).sum()))
            gradients[number, rows.cpu()] = attempt.gradients
            forwards[number, rows.cpu()] = attempt.forwards + draws * (2 if draws > 1 else 1)
            zero[rows] += attempt.zero
            invalid[rows] += attempt.invalid
            if trace:
                curve = torch.full((len(trace), len(images)), torch.nan)
                curve[:, rows.cpu()] = torch.stack(trace).cpu()
                losses[stage.name] = curve
        margins.append(margin.clone())
    most_passes = int(gradients.sum(0).max()), int(forwards.sum(0).max()) + draws
    perturbed = Perturbed(best, *most_passes, zero, invalid)
    return Outcome(perturbed, torch.stack(margins).cpu(), left.cpu(), gradients, forwards, losses)


def run_stage(
    stage: Stage,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    best: Tensor,
    rows: Tensor,
    order: Tensor,
    seed: int,
    image_ids: Tensor,
    progress: Callable[[int], object],
) -> tuple[Perturbed, list[Tensor]]:
    """Returns the stage's attempts on the rows that stand, and the losses of its steps."""
    trace: list[Tensor] = []
    options: dict[str, Any] = {"start": best[rows]} if stage.from_best else {}
    if isinstance(stage.settings, PGDSettings | APGDSettings):
        options["trace"] = trace
    attempt = METHODS[type(stage.settings)](
        stage.model,
        images[rows],
        labels[rows],
        stage.settings,
        seed=derive_seed(seed, f"stage {stage.name}"),
        image_ids=image_ids[rows],
        targets=order[rows, stage.target - 1] if stage.target else None,
        judge=model,
        progress=progress,
        **options,
    )
    return attempt, trace
