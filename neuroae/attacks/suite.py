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
    cascade = Cascade(model, images, labels, stages, seed, image_ids, draws, scoring_draws, probabilities, progress)
    for number in range(len(stages)):
        cascade.run(number)
    return cascade.outcome()


class Cascade:
    """A batch of images on its way through the stages.

    Takes the arguments of ``run_suite``.

    Attributes:
        best: (B, C, H, W) float32, the best attempt on each image so far; at first the image itself.
        margin: (B,) float32, the margin of this attempt on selection draws.
        left: (B,) int64, as ``Outcome.stage``.
        order: (B, classes - 1) int64, the wrong classes of each clean image, the likeliest first.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        stages: Sequence[Stage],
        seed: int,
        image_ids: Tensor,
        draws: int,
        scoring_draws: int,
        probabilities: bool,
        progress: Callable[[int], object],
    ) -> None:
        self.model, self.judge = model, LogProbabilities(model) if probabilities else model
        self.images, self.labels, self.image_ids = images.detach(), labels, image_ids
        self.stages, self.seed, self.progress = stages, seed, progress
        self.draws, self.scoring_draws = draws, scoring_draws
        clean = self.vote(self.images, torch.arange(len(images), device=images.device), CLEAN)
        self.best, self.margin = self.images.clone(), clean.margin.clone()
        self.left = torch.where(clean.fooled, 0, -1)
        order_seed = derive_seed(batch_seed(model, seed, image_ids), "targets")
        self.order = wrong_classes(self.judge, self.images, labels, draws, order_seed, image_ids)
        shape = (len(stages), len(images))
        self.gradients, self.forwards = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        self.zero, self.invalid = torch.zeros_like(labels), torch.zeros_like(labels)
        self.margins, self.losses = [self.margin.clone()], dict[str, Tensor]()
        # Images that leave take no passes of later stages, which count as made.
        self.remaining = [sum(stage.passes for stage in stages[number:]) for number in range(len(stages) + 1)]
        progress(self.remaining[0] * int((self.left == 0).sum()))

    def vote(self, shown: Tensor, rows: Tensor, name: str) -> Vote:
        """Returns the vote on images (rows, C, H, W), which stand for these rows, on the selection draws of a name."""
        ids = self.image_ids[rows]
        seed = derive_seed(batch_seed(self.model, self.seed, ids), f"suite {name}")
        with autocast("float32", shown.device):
            logits = list(drawn_logits(self.judge, shown, self.draws, seed, ids))
        return Vote.of(logits, self.labels[rows], self.scoring_draws)

    def run(self, number: int) -> None:
        """Runs the stage of this number on the images that stand, unless it is skipped or aims at no class."""
        stage, rows = self.stages[number], (self.left < 0).nonzero().flatten()
        if len(rows) and not stage.skipped and stage.target <= self.order.shape[1]:
            attempt, trace = self.attempt(stage, rows)
            self.keep_better(number, rows, attempt.images.float().clamp(0, 1))
            self.progress(self.remaining[number + 1] * int((self.left[rows] > 0).sum()))
            self.gradients[number, rows.cpu()] = attempt.gradients
            self.forwards[number, rows.cpu()] = attempt.forwards + self.draws * (2 if self.draws > 1 else 1)
            self.zero[rows] += attempt.zero
            self.invalid[rows] += attempt.invalid
            if trace:
                curve = torch.full((len(trace), len(self.images)), torch.nan)
                curve[:, rows.cpu()] = torch.stack(trace).cpu()
                self.losses[stage.name] = curve
        self.margins.append(self.margin.clone())

    def attempt(self, stage: Stage, rows: Tensor) -> tuple[Perturbed, list[Tensor]]:
        """Returns a stage's attempts on these rows, and the losses of its steps."""
        trace: list[Tensor] = []
        options: dict[str, Any] = {"start": self.best[rows]} if stage.from_best else {}
        if isinstance(stage.settings, PGDSettings | APGDSettings):
            options["trace"] = trace
        attempt = METHODS[type(stage.settings)](
            stage.model,
            self.images[rows],
            self.labels[rows],
            stage.settings,
            seed=derive_seed(self.seed, f"stage {stage.name}"),
            image_ids=self.image_ids[rows],
            targets=self.order[rows, stage.target - 1] if stage.target else None,
            judge=self.model,
            progress=self.progress,
            **options,
        )
        return attempt, trace

    def keep_better(self, number: int, rows: Tensor, shown: Tensor) -> None:
        """Keeps a stage's attempts (rows, C, H, W) where they beat the best ones, and lets fooled images leave."""
        name = self.stages[number].name
        new = self.vote(shown, rows, name)
        # A deterministic model would answer as before: the image stands.
        stands = Vote(self.margin[rows], torch.zeros_like(rows) > 0)
        old = self.vote(self.best[rows], rows, name) if self.draws > 1 else stands
        better = new.margin > old.margin
        self.margin[rows] = torch.where(better, new.margin, old.margin)
        self.best[rows[better]] = shown[better]
        self.left[rows[torch.where(better, new.fooled, old.fooled)]] = number + 1

    def outcome(self) -> Outcome:
        """Returns what the stages did."""
        most_passes = int(self.gradients.sum(0).max()), int(self.forwards.sum(0).max()) + self.draws
        perturbed = Perturbed(self.best, *most_passes, self.zero, self.invalid)
        margins = torch.stack(self.margins).cpu()
        return Outcome(perturbed, margins, self.left.cpu(), self.gradients, self.forwards, self.losses)
