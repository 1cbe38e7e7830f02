"""The standard suite: one attack without parameters for any model, deterministic, random or without gradients.

A cascade of stages. Each works on the images that still stand, begins where the best attempt so far ended, and is
judged on draws of its own. What a model offers itself comes first, then Auto-PGD, repairs of dead or misleading
gradients, transfer from other models, and search by answers alone. A probe of the model decides which stages run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.randomness import derive_seed
from .apgd import apgd
from .balls import Norm
from .bpda import LogProbabilities, Smoothed
from .checks import check_inputs
from .evolution import EvolutionSettings, evolution
from .joint import JointSources
from .losses import drawn_logits, pick, sum_log_probabilities, vote_margin
from .pgd import pgd
from .probe import Probe
from .protocol import batch_seed, call_optional
from .restarts import Perturbed
from .settings import APGDSettings, PGDSettings, SquareSettings
from .square import square
from .straight_through import StraightThrough
from .taps import InputTap, LogitsTap

SuiteName = Literal["standard", "quick"]
METHODS: dict[type, Callable[..., Perturbed]] = {
    PGDSettings: pgd,
    APGDSettings: apgd,
    SquareSettings: square,
    EvolutionSettings: evolution,
}
Settings = PGDSettings | APGDSettings | SquareSettings | EvolutionSettings
# An image leaves the cascade when the vote is against its label by more standard errors of a scoring vote than this.
ERRORS_BEYOND_LUCK = 2.0
CLEAN = "clean"
# How stages begin that only ask whether a larger budget changes the verdict.
LARGER = "larger budget: "
# Standard deviation of noise and differences under an l2 budget, on the scale of pixels.
L2_SIGMA = 0.02


@dataclass(frozen=True)
class Effort:
    """How much a suite spends on an image that keeps standing.

    Attributes:
        offered_steps: Steps on each gradient that the model offers, with 2 realizations.
        steps: Steps of Auto-PGD on a deterministic model.
        random_steps: The same on a random one, whose steps take several realizations.
        realizations: The most that a gradient averages.
        targets: Wrong classes that are aimed at, the likeliest first, on a deterministic model.
        random_targets: The same on a random one.
        queries: Squares that are tried on a deterministic model.
        random_queries: The same on a random one.
        evolution_steps, evolution_pairs: Of the evolution strategy.
        factor: How many times the steps and realizations of the first gradient stage are raised in the end, to see
            whether a larger budget changes the verdict; 1 does not ask.
        draws: Realizations that judge an attempt on a random model, and that answer a query a tenth of them.
    """

    offered_steps: int = 20
    steps: int = 100
    random_steps: int = 40
    realizations: int = 10
    targets: int = 9
    random_targets: int = 3
    queries: int = 2500
    random_queries: int = 500
    evolution_steps: int = 30
    evolution_pairs: int = 20
    draws: int = 40
    factor: int = 3


EFFORTS: dict[str, Effort] = {
    "standard": Effort(),
    "quick": Effort(10, 20, 10, 5, 2, 1, 300, 60, 8, 10, 20, 1),
}


@dataclass(frozen=True, eq=False)
class Stage:
    """One attack of the cascade.

    Attributes:
        name: Shown in tables; the seeds of the stage follow from it.
        model: The model whose gradients or answers are followed.
        settings: They decide the method, too.
        target: 0 is untargeted; n aims at the n-th likeliest wrong class of the clean image.
        from_best: Whether it starts at the best attempt so far, and not at the image.
        skipped: Why it does not run; empty where it does.
    """

    name: str
    model: nn.Module
    settings: Settings
    target: int = 0
    from_best: bool = False
    skipped: str = ""

    @property
    def passes(self) -> int:
        return 0 if self.skipped else self.settings.gradients + self.settings.forwards


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the cascade did to a batch of images.

    Attributes:
        perturbed: Each image's worst, with the most passes that an image took.
        margins: (stages + 1, B) float32, the margin of the best attempt on selection draws, of the clean image first;
            above 0 where the vote is against the label.
        stage: (B,) int64, the stage in whose end the image left the cascade; 0 is the clean image, -1 it stands.
        gradients, forwards: (stages, B) int64, passes that each stage took on each image.
        losses: By stage, (steps, B) float32, what the attack raised; NaN where an image was out of the cascade.
    """

    perturbed: Perturbed
    margins: Tensor
    stage: Tensor
    gradients: Tensor
    forwards: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


def suite_stages(
    model: nn.Module,
    probe: Probe,
    *,
    epsilon: float,
    norm: Norm = "linf",
    effort: Effort = EFFORTS["standard"],
    sources: Sequence[tuple[str, nn.Module]] = (),
    differentiable: bool = True,
) -> list[Stage]:
    """Returns the stages in the order in which they run, those that cannot help included with the reason.

    Args:
        model: The attacked model.
        probe: What was measured of it.
        epsilon: Radius of the ball.
        norm: "linf" or "l2".
        effort: How much is spent.
        sources: Other models by name, from which attacks are transferred.
        differentiable: Whether the model is a module that may have gradients, not a function that only answers.
    """
    plan = Planner(model, probe, epsilon, norm, effort)
    if not differentiable:
        return [*plan.searches(), *plan.larger_budgets([])]
    # A misleading gradient costs passes that its repair may save.
    parts = (plan.gradients, plan.repairs) if probe.gradient == "usable" else (plan.repairs, plan.gradients)
    followed = [*plan.offers(), *(stage for part in parts for stage in part())]
    return [*followed, *plan.transfers(sources), *plan.searches(), *plan.larger_budgets(followed)]


@dataclass(frozen=True, eq=False)
class Planner:
    """Makes the stages of one model; see ``suite_stages`` for the attributes."""

    model: nn.Module
    probe: Probe
    epsilon: float
    norm: Norm
    effort: Effort

    @property
    def attacked(self) -> nn.Module:
        """The model with logits, or with log-probabilities in the place of probabilities."""
        return LogProbabilities(self.model) if self.probe.probabilities else self.model

    @property
    def sigma(self) -> float:
        """The standard deviation of noise and differences, on the scale of pixels."""
        return self.epsilon / 2 if self.norm == "linf" else L2_SIGMA

    @property
    def no_repair(self) -> str:
        """Why the gradient needs no stand-in; "" where it does."""
        return "gradients agree with differences of the loss" if self.probe.gradient == "usable" else ""

    def offers(self) -> Iterator[Stage]:
        """Gradients that the model offers itself."""
        for name, view in (call_optional(self.model, "attack_gradients") or {}).items():
            step_size = self.epsilon * 255 / (8 * 225)
            settings = PGDSettings.selection_recipe(
                epsilon=self.epsilon, norm=self.norm, step_size=step_size, steps=self.effort.offered_steps
            )
            if self.norm == "l2":
                settings = replace(settings, step_size=self.epsilon / 8)
            yield Stage(f"{name} (offered by the model)", view, settings)

    def apgd(self, loss: Any, realizations: int, draws: bool | None = None) -> APGDSettings:
        random = self.probe.random if draws is None else draws
        count = min(max(realizations, 1), self.effort.realizations) if random else 1
        steps = self.effort.random_steps if random else self.effort.steps
        judged = self.effort.draws if self.probe.random else 1
        return APGDSettings(
            self.epsilon, steps, realizations=count, loss=loss, norm=self.norm, fresh=random, selection=judged
        )

    def gradients(self) -> Iterator[Stage]:
        """Auto-PGD on the model's own gradient."""
        probe = self.probe
        skipped = "" if probe.gradient in ("usable", "misleading") else f"gradients are {probe.gradient}"
        count = probe.realizations
        yield Stage("APGD, cross-entropy", self.attacked, self.apgd("cross-entropy", count), skipped=skipped)
        yield Stage("APGD, margin", self.attacked, self.apgd("margin", count), skipped=skipped)
        targets = min(self.effort.targets, self.effort.random_targets) if probe.random else self.effort.targets
        for rank in range(1, targets + 1):
            name = f"APGD, targeted {rank}"
            yield Stage(name, self.attacked, self.apgd("margin", count), rank, skipped=skipped)

    def repairs(self) -> Iterator[Stage]:
        """Stand-ins for gradients that are dead or disagree with differences of the loss."""
        settings = self.apgd("margin", max(self.probe.realizations, self.effort.realizations))
        other_loss = "" if self.effort.targets > 2 else "left out of the quick suite"
        views = self.repaired()
        for name, (view, reason) in views.items():
            skipped = self.no_repair or ("" if view is not None else reason)
            crafting = view or self.model
            yield Stage(f"{name}, margin", crafting, settings, skipped=skipped)
            second = replace(settings, loss="cross-entropy")
            yield Stage(f"{name}, cross-entropy", crafting, second, skipped=skipped or other_loss)
        repaired = [view for view, _ in views.values() if view is not None]
        alive = [self.attacked] if self.probe.gradient == "misleading" else []
        base = next(iter([*repaired[::-1], *alive]), None)
        smoothed = Smoothed(base or self.attacked, self.sigma)
        settings = self.apgd("margin", self.effort.realizations, draws=True)
        skipped = self.no_repair or ("" if base is not None else "there is no gradient to smooth")
        yield Stage("smoothed gradient, margin", smoothed, settings, from_best=True, skipped=skipped)

    def repaired(self) -> dict[str, tuple[nn.Module | None, str]]:
        """Views of the model by the name of the repair; None, with the reason, where it has nothing to repair."""
        probe = self.probe
        logits = LogitsTap(self.model, probe.logits_tap) if probe.logits_tap is not None else None
        straight = StraightThrough(logits or self.attacked) if probe.straight_through else None
        tapped = logits or self.attacked
        prefix = "" if tapped is self.model else "model."
        image = InputTap(tapped, prefix + probe.input_taps[0]) if probe.input_taps else None
        return {
            "logits tap": (logits, "no logits with a gradient before the answer"),
            "straight-through": (straight, "nothing in the model rounds, casts or compares"),
            "input tap": (image, "no image-like input within the model has a gradient"),
        }

    def transfers(self, sources: Sequence[tuple[str, nn.Module]]) -> Iterator[Stage]:
        """Attacks crafted on other models, alone and jointly."""
        if not sources:
            yield Stage("transfer", self.model, self.apgd("margin", 1), skipped="no source was named")
        if len(sources) > 1:
            joint = JointSources([source for _, source in sources])
            yield Stage("transfer from all sources jointly", joint, self.apgd("margin", 1, draws=False))
        for name, source in sources:
            yield Stage(f"transfer from {name}", source, self.apgd("margin", 1, draws=False))

    def searches(self) -> Iterator[Stage]:
        """Search by answers alone, from the best attempt so far."""
        effort, random = self.effort, self.probe.random
        draws = max(effort.draws // 10, 1) if random else 1
        queries = effort.random_queries if random else effort.queries
        yield Stage(
            "Square",
            self.attacked,
            SquareSettings(self.epsilon, queries, draws, fresh=random, norm=self.norm),
            0,
            True,
        )
        settings = EvolutionSettings(
            self.epsilon,
            self.epsilon / 4,
            effort.evolution_steps,
            effort.evolution_pairs,
            self.sigma,
            draws=draws,
            norm=self.norm,
        )
        yield Stage("evolution strategy", self.attacked, settings, 0, True, skipped=self.no_repair)

    def larger_budgets(self, followed: Sequence[Stage]) -> Iterator[Stage]:
        """The first gradient stage again, with more steps, more realizations and another start, one at a time.

        Square with more queries where no stage follows gradients.

        Args:
            followed: The stages that follow gradients.
        """
        factor = self.effort.factor
        if factor == 1:
            return
        first = next((stage for stage in followed if not stage.skipped and not stage.from_best), None)
        if first is None:
            search = next(self.searches())
            assert isinstance(search.settings, SquareSettings)
            longer = replace(search.settings, queries=factor * search.settings.queries)
            yield replace(search, name=f"{LARGER}more queries", settings=longer)
            return
        assert isinstance(first.settings, PGDSettings | APGDSettings)
        changes: dict[str, dict[str, Any]] = {"more steps": {"steps": factor * first.settings.steps}}
        if self.probe.random:
            changes["more realizations"] = {"realizations": factor * first.settings.realizations}
        changes["another start"] = {"random_start": True}
        for title, change in changes.items():
            yield replace(first, name=f"{LARGER}{title}", settings=replace(first.settings, **change))


class Vote(NamedTuple):
    """What realizations of the model say to images: the margin of their vote, and whether it is beyond luck.

    Attributes:
        margin: (B,) float32, of the log of the mean softmax output: above 0 where the vote is against the label.
        fooled: (B,) bool, whether it is so by more than ``ERRORS_BEYOND_LUCK`` standard errors of a scoring vote.
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
        model: The model that is to be fooled, in evaluation mode.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        stages: From ``suite_stages``.
        seed: Of all draws.
        image_ids: (B,) int64, the images' numbers in the draws.
        draws: Realizations that judge an attempt; 1 for a deterministic model.
        scoring_draws: Realizations of the vote in which the verdict is given: their standard error is the bound beyond
            which an image leaves the cascade.
        probabilities: Whether the model answers with probabilities.
        progress: Called with passes, in images times realizations.
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
        if len(rows) and not stage.skipped and stage.target < order.shape[1] + 1:
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


def wrong_classes(
    model: nn.Module, images: Tensor, labels: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Tensor:
    """(B, classes - 1) int64, the wrong classes of each image, the likeliest first."""
    total = sum_log_probabilities(drawn_logits(model, images, draws, seed, image_ids))
    return total.scatter(-1, labels[:, None], -torch.inf).argsort(-1, descending=True)[:, :-1]
