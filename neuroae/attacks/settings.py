"""The settings of each attack, with budgets on the scale of pixels in [0, 1], and the passes that they cost."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..utils.validation import check_integer, check_number
from .balls import NORMS, Norm
from .checks import check_choice
from .eot import AVERAGES, Average
from .losses import LOSS_NAMES, LossName

Schedule = Literal["constant", "cosine"]
SCHEDULES = get_args(Schedule)
R_FGSM_STEP = 1.25
# APGD's checkpoints in percent of its steps: the first one, and how far and down to what their distances shrink.
FIRST_CHECKPOINT, DECREMENT, SHORTEST = 22, 3, 6


@dataclass(frozen=True)
class PGDSettings:
    """The settings of ``pgd``, with the paper's defaults (section 5.1).

    Attributes:
        epsilon: The radius of the ball.
        step_size: The length of each step in the norm.
        steps: The number of steps, N_S.
        restarts: The number of restarts, N_R, which run as one batch and share the draws of a step. The first starts
            at the image, the others at a uniform point of the ball. The worst attempt on each image is chosen on draws
            that no gradient used.
        realizations: The number of draws averaged in a gradient, N_E; 1 is enough for a deterministic model.
        average: How gradients are averaged (see ``eot_gradient``).
        loss: The loss that steps raise, a key of ``losses.LOSSES``.
        norm: "linf" or "l2".
        random_start: Whether the first restart starts at a uniform point of the ball, too.
        chunk: The number of realizations in memory at a time; None decides by the number of images.
        selection: The number of draws that choose the worst attempt on each image. None takes ``realizations``; that
            is too few where the attack is crafted on a deterministic model to fool a random one.
        momentum: The factor, in [0, 1), of the last direction, which is added to the gradient divided by its l2 norm.
            0 follows the gradient alone.
        schedule: "constant", or "cosine" for steps that shrink along half a cosine, from ``step_size`` towards 0.

    Raises:
        TypeError, ValueError: A setting does not fit; the message names it.
    """

    epsilon: float = 8 / 255
    step_size: float = 1 / 225
    steps: int = 20
    restarts: int = 1
    realizations: int = 40
    average: Average = "normalized"
    loss: LossName = "cross-entropy"
    norm: Norm = "linf"
    random_start: bool = False
    chunk: int | None = None
    selection: int | None = None
    momentum: float = 0.0
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        check_gradient_settings(self)
        check_number("momentum", self.momentum, lambda share: 0 <= share < 1, "in [0, 1)")
        check_choice("schedule", self.schedule, SCHEDULES)
        check_number("step_size", self.step_size, lambda size: size > 0 or size == self.epsilon == 0, "above 0")

    @classmethod
    def fgsm(cls, epsilon: float = 8 / 255, realizations: int = 40) -> "PGDSettings":
        """Returns FGSM, one step as long as the budget (Goodfellow et al., 2015)."""
        return cls(epsilon, epsilon, steps=1, realizations=realizations)

    @classmethod
    def r_fgsm(cls, epsilon: float = 8 / 255, realizations: int = 40) -> "PGDSettings":
        """Returns R-FGSM, one step of 1.25 times the budget from a random point of the ball (Wong et al., 2020)."""
        return cls(epsilon, R_FGSM_STEP * epsilon, steps=1, realizations=realizations, random_start=True)

    @classmethod
    def selection_recipe(cls, **settings: Any) -> "PGDSettings":
        """Returns settings for the gradient through the selection: few realizations a step, averaged by momentum.

        ``settings`` replace those of the recipe. ``PGDSettings.selection(...)`` does the same.
        """
        recipe: dict[str, Any] = {"realizations": 2, "loss": "margin", "momentum": 0.75}
        return cls(**recipe | settings)

    def size_of_step(self, step: int) -> float:
        """Returns the size of the step with this number, from 0 on."""
        if self.schedule == "constant":
            return self.step_size
        return self.step_size * (1 + math.cos(math.pi * step / self.steps)) / 2

    @property
    def gradients(self) -> int:
        """The number of gradient passes for each image, N_S N_R N_E."""
        return self.steps * self.restarts * self.realizations

    @property
    def forwards(self) -> int:
        """The number of forward passes for each image, which choose the worst restart."""
        return self.restarts * selection_draws(self) if self.restarts > 1 else 0


# The class has the recipe under this name, instances have the field: instance attributes have precedence.
PGDSettings.selection = PGDSettings.selection_recipe  # type: ignore[assignment]


@dataclass(frozen=True)
class APGDSettings:
    """The settings of ``apgd``, which adapts the step size. Attributes not listed here are as in ``PGDSettings``.

    Attributes:
        steps: The number of steps, which also sets the checkpoints.
        rho: The step size is halved where less than this share of the steps since the last checkpoint raised the loss.
        fresh: Whether checkpoints compare points on draws that no gradient used (see ``apgd``). False saves these
            passes, and gives the same result on a deterministic model.

    Raises:
        TypeError, ValueError: A setting does not fit; the message names it.
    """

    epsilon: float = 8 / 255
    steps: int = 100
    restarts: int = 1
    realizations: int = 40
    average: Average = "normalized"
    loss: LossName = "cross-entropy"
    norm: Norm = "linf"
    random_start: bool = False
    rho: float = 0.75
    chunk: int | None = None
    fresh: bool = True
    selection: int | None = None

    def __post_init__(self) -> None:
        check_gradient_settings(self)
        check_number("rho", self.rho, lambda share: 0 <= share <= 1, "in [0, 1]")

    @property
    def gradients(self) -> int:
        """The number of gradient passes for each image. The point after the last step has one too, for its loss."""
        return (self.steps + 1) * self.restarts * self.realizations

    @property
    def forwards(self) -> int:
        """The number of forward passes for each image, which compare points at checkpoints and at the end."""
        at_checkpoints = self.fresh * len(checkpoints(self.steps)) * self.realizations
        return 2 * self.restarts * (at_checkpoints + selection_draws(self))


def checkpoints(steps: int) -> set[int]:
    """Returns the numbers of the steps after which APGD may halve its step sizes; their distances shrink."""
    numbers, percent, distance = set(), FIRST_CHECKPOINT, FIRST_CHECKPOINT
    while percent <= 100:
        numbers.add(-(-percent * steps // 100))
        distance = max(distance - DECREMENT, SHORTEST)
        percent += distance
    return numbers


@dataclass(frozen=True)
class SquareSettings:
    """The settings of ``square``.

    Attributes:
        epsilon: The radius of the ball.
        queries: The number of squares to try.
        draws: The number of realizations, fresh ones for each query, in the mean that compares an image with and
            without the new square.
        p_init: The share of the image's area that the first squares cover.
        fresh: Whether each query evaluates the image without the new square again. False keeps its value until a
            square changes the image: half the passes, and the same result on a deterministic model. On a random model
            the search would then stall at a lucky value.
        norm: "linf" or "l2".

    Raises:
        TypeError, ValueError: A setting does not fit; the message names it.
    """

    epsilon: float = 8 / 255
    queries: int = 1000
    draws: int = 10
    p_init: float = 0.8
    fresh: bool = True
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_epsilon(self.epsilon, self.norm)
        check_integer("queries", self.queries, 1)
        check_integer("draws", self.draws, 1)
        check_number("p_init", self.p_init, lambda share: 0 < share <= 1, "above 0, at most 1")

    @property
    def gradients(self) -> int:
        """The number of gradient passes, 0."""
        return 0

    @property
    def forwards(self) -> int:
        """The number of forward passes for each image: two for each query and draw, or one, and one at the start."""
        return (2 * self.queries if self.fresh else self.queries + 1) * self.draws


@dataclass(frozen=True)
class EvolutionSettings:
    """The settings of ``evolution``.

    Attributes:
        epsilon: The radius of the ball.
        step_size: The length of each step in the norm.
        steps: The number of steps; each follows an estimate of its own.
        pairs: The number of antithetic pairs of points in an estimate.
        sigma: The standard deviation of the noise that leads to these points, on the scale of pixels in [0, 1].
        coarseness: The noise is constant on squares with this side in pixels, so there are fewer numbers to estimate.
        draws: The number of realizations in the mean at a point, the same for both points of a pair; 1 is enough for a
            deterministic model.
        momentum: The factor, in [0, 1), of the last direction, which is added to the estimate divided by its l2 norm.
        norm: "linf" or "l2".

    Raises:
        TypeError, ValueError: A setting does not fit; the message names it.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 30
    pairs: int = 20
    sigma: float = 4 / 255
    coarseness: int = 2
    draws: int = 1
    momentum: float = 0.75
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_epsilon(self.epsilon, self.norm)
        for name in ("steps", "pairs", "coarseness", "draws"):
            check_integer(name, getattr(self, name), 1)
        for name in ("step_size", "sigma"):
            check_number(name, getattr(self, name), lambda size: size > 0, "above 0")
        check_number("momentum", self.momentum, lambda share: 0 <= share < 1, "in [0, 1)")

    @property
    def gradients(self) -> int:
        """The number of gradient passes, 0."""
        return 0

    @property
    def forwards(self) -> int:
        """The number of forward passes for each image: two for each pair, and two for the comparison after a step."""
        return self.steps * (2 * self.pairs + 2) * self.draws


GradientSettings = PGDSettings | APGDSettings


def selection_draws(settings: GradientSettings) -> int:
    """Returns the number of draws that choose the worst attempt on each image."""
    return settings.realizations if settings.selection is None else settings.selection


def check_gradient_settings(settings: GradientSettings) -> None:
    """Checks the settings that PGD and APGD share."""
    check_choice("norm", settings.norm, NORMS)
    check_epsilon(settings.epsilon, settings.norm)
    for name in ("steps", "restarts", "realizations"):
        check_integer(name, getattr(settings, name), 1)
    for name in ("chunk", "selection"):
        if getattr(settings, name) is not None:
            check_integer(name, getattr(settings, name), 1)
    check_choice("average", settings.average, AVERAGES)
    check_choice("loss", settings.loss, LOSS_NAMES)


def check_epsilon(epsilon: float, norm: Norm) -> None:
    """Checks a radius; in l2 it may be above 1."""
    if norm == "linf":
        check_number("epsilon", epsilon, lambda size: 0 <= size <= 1, "in [0, 1], on the scale of pixels in [0, 1]")
    else:
        check_number("epsilon", epsilon, lambda size: size >= 0, "at least 0")
