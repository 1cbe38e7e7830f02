"""The stages of the standard suite: which attacks run on a model, in which order, and with what effort.

What a model offers itself comes first, then Auto-PGD, repairs of dead or misleading gradients, transfer from other
models, and search by answers alone. A probe of the model decides which stages run. ``suite`` runs them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from .balls import Norm
from .bpda import LogProbabilities, Smoothed
from .joint import JointSources
from .probe import Probe
from .protocol import call_optional
from .settings import APGDSettings, EvolutionSettings, PGDSettings, SquareSettings
from .straight_through import StraightThrough
from .taps import InputTap, LogitsTap

SuiteName = Literal["standard", "quick"]
Settings = PGDSettings | APGDSettings | SquareSettings | EvolutionSettings
# Names of stages that only ask whether a larger budget changes the verdict begin with this.
LARGER = "larger budget: "
# Standard deviation of noise and differences under an l2 budget, on the scale of pixels.
L2_SIGMA = 0.02


@dataclass(frozen=True)
class Effort:
    """How much a suite spends on an image that stands to the end.

    Attributes:
        offered_steps: Steps on each gradient that the model offers, with 2 realizations.
        steps: Steps of Auto-PGD on a deterministic model.
        random_steps: The same on a random one, whose steps take several realizations.
        realizations: The most that a gradient averages.
        targets: Wrong classes that are aimed at, the likeliest first, on a deterministic model.
        random_targets: The same on a random one.
        queries: Squares that are tried on a deterministic model.
        random_queries: The same on a random one.
        evolution_steps: Steps of the evolution strategy on a deterministic model.
        random_evolution_steps: The same on a random one.
        evolution_pairs: Pairs of opposite directions in each of them.
        draws: Realizations that judge an attempt on a random model. A tenth of them answers each query of a search.
        factor: By how much the last stages multiply the steps and realizations of the first gradient stage, to see
            whether a larger budget changes the verdict; 1 leaves these stages out.
    """

    offered_steps: int = 20
    steps: int = 100
    random_steps: int = 40
    realizations: int = 10
    targets: int = 9
    random_targets: int = 3
    queries: int = 2500
    random_queries: int = 250
    evolution_steps: int = 30
    random_evolution_steps: int = 15
    evolution_pairs: int = 20
    draws: int = 40
    factor: int = 3


EFFORTS: dict[str, Effort] = {
    "standard": Effort(),
    "quick": Effort(
        offered_steps=10,
        steps=20,
        random_steps=10,
        realizations=5,
        targets=2,
        random_targets=1,
        queries=300,
        random_queries=60,
        evolution_steps=8,
        random_evolution_steps=8,
        evolution_pairs=10,
        draws=20,
        factor=1,
    ),
}


@dataclass(frozen=True, eq=False)
class Stage:
    """One attack of the cascade.

    Attributes:
        name: The name in tables; the seeds of the stage derive from it.
        model: The model whose gradients or answers are followed.
        settings: Budget, steps and draws. Their type decides the method.
        target: 0 is untargeted; n aims at the n-th likeliest wrong class of the clean image.
        from_best: Whether it starts at the best attempt so far, and not at the image.
        skipped: Why it does not run, or "".
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
    """Returns the stages in the order in which they run. Stages that cannot help are among them, with the reason.

    Args:
        model: The attacked model.
        probe: What was measured of it.
        epsilon: Radius of the ball.
        norm: "linf" or "l2".
        effort: How much the suite spends (see ``EFFORTS``).
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
        """Yields PGD on each gradient that the model offers itself."""
        for name, view in (call_optional(self.model, "attack_gradients") or {}).items():
            step_size = self.epsilon * 255 / (8 * 225)
            settings = PGDSettings.selection_recipe(
                epsilon=self.epsilon, norm=self.norm, step_size=step_size, steps=self.effort.offered_steps
            )
            if self.norm == "l2":
                settings = replace(settings, step_size=self.epsilon / 8)
            yield Stage(f"{name} (offered by the model)", view, settings)

    def apgd(self, loss: Any, realizations: int, draws: bool | None = None) -> APGDSettings:
        """Returns settings of Auto-PGD.

        Args:
            loss: The loss that steps raise.
            realizations: N_E that the probe asks for; the effort limits it.
            draws: Whether the followed model draws; None takes what the probe measured of the attacked one.
        """
        random = self.probe.random if draws is None else draws
        count = min(max(realizations, 1), self.effort.realizations) if random else 1
        steps = self.effort.random_steps if random else self.effort.steps
        judged = self.effort.draws if self.probe.random else 1
        return APGDSettings(
            self.epsilon, steps, realizations=count, loss=loss, norm=self.norm, fresh=random, selection=judged
        )

    def gradients(self) -> Iterator[Stage]:
        """Yields Auto-PGD on the model's own gradient."""
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
        """Yields Auto-PGD on stand-ins for gradients that are dead or disagree with differences of the loss."""
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
        """Returns views of the model by the name of the repair; None, with the reason, if it repairs nothing."""
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
        """Yields Auto-PGD on other models, all of them jointly and each alone."""
        if not sources:
            yield Stage("transfer", self.model, self.apgd("margin", 1), skipped="no source was named")
        if len(sources) > 1:
            joint = JointSources([source for _, source in sources])
            yield Stage("transfer from all sources jointly", joint, self.apgd("margin", 1, draws=False))
        for name, source in sources:
            yield Stage(f"transfer from {name}", source, self.apgd("margin", 1, draws=False))

    def searches(self) -> Iterator[Stage]:
        """Yields searches by answers alone, from the best attempt so far."""
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
            effort.random_evolution_steps if random else effort.evolution_steps,
            effort.evolution_pairs,
            self.sigma,
            draws=draws,
            norm=self.norm,
        )
        yield Stage("evolution strategy", self.attacked, settings, 0, True, skipped=self.no_repair)

    def larger_budgets(self, followed: Sequence[Stage]) -> Iterator[Stage]:
        """Yields the first gradient stage again, with more steps, more realizations and another start, one at a time.

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
