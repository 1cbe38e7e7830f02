"""How much each attack may do: budgets on the scale of pixels in [0, 1], and the passes that they cost."""

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
# Of APGD's steps, in percent: the first checkpoint, and by how much the distances between them shrink, down to which.
FIRST_CHECKPOINT, SHORTER, SHORTEST = 22, 3, 6


@dataclass(frozen=True)
class PGDSettings:
    """The paper's defaults (section 5.1).

    Attributes:
        epsilon: radius of the ball.
        step_size: of each step, in the norm.
        steps: N_S.
        restarts: N_R, one batch; the first starts at the image, the others at a uniform point of the ball. Each image
            keeps its worst, on draws that no gradient saw. Restarts share the draws of a step.
        realizations: N_E, draws averaged in a gradient; 1 is enough for a deterministic model.
        average: how (see ``eot_gradient``).
        loss: that is raised (see ``losses``).
        norm: "linf" or "l2".
        random_start: the first restart starts at a uniform point as well.
        chunk: realizations in memory at a time; None decides by the number of images.
        selection: draws that choose the worst attempt on each image; None takes as many as ``realizations``, which
            are too few where the attack is crafted on a model that draws nothing, to fool one that does.
        momentum: a step goes along the gradient, of unit l2 norm, plus so many times the direction of the step before;
            in [0, 1), 0 follows the gradient alone.
        schedule: "constant", or "cosine" for steps that shrink along half a cosine, from ``step_size`` towards 0.
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
        """One step as long as the budget (Goodfellow et al., 2015)."""
        return cls(epsilon, epsilon, steps=1, realizations=realizations)

    @classmethod
    def r_fgsm(cls, epsilon: float = 8 / 255, realizations: int = 40) -> "PGDSettings":
        """One step of 1.25 times the budget from a random point of the ball (Wong et al., 2020)."""
        return cls(epsilon, R_FGSM_STEP * epsilon, steps=1, realizations=realizations, random_start=True)

    @classmethod
    def selection_recipe(cls, **settings: Any) -> "PGDSettings":
        """For the gradient through the selection: few realizations a step, whose noise momentum averages.

        ``settings`` replace those of the recipe. ``PGDSettings.selection(...)`` is the same.
        """
        recipe: dict[str, Any] = {"realizations": 2, "loss": "margin", "momentum": 0.75}
        return cls(**recipe | settings)

    def size_of_step(self, step: int) -> float:
        """Of the step with this number, from 0 on."""
        if self.schedule == "constant":
            return self.step_size
        return self.step_size * (1 + math.cos(math.pi * step / self.steps)) / 2

    @property
    def gradients(self) -> int:
        """Gradient passes an image: N_S N_R N_E."""
        return self.steps * self.restarts * self.realizations

    @property
    def forwards(self) -> int:
        """Forward passes an image, for the selection of the worst restart."""
        return self.restarts * selection_draws(self) if self.restarts > 1 else 0


# On the class the recipe, on its instances the field of that name: an instance's own attribute comes first.
PGDSettings.selection = PGDSettings.selection_recipe  # type: ignore[assignment]


@dataclass(frozen=True)
class APGDSettings:
    """What is not told here is as in ``PGDSettings``. There is no step size to choose.

    Attributes:
        steps: the step size follows checkpoints that are set by this number.
        rho: the step size is halved where a smaller share of the steps since the last checkpoint raised the loss.
        fresh: False leaves out, at checkpoints, the comparison on draws that no gradient saw (see ``apgd``). It takes
            no pass then, and is the same where the model draws nothing.
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
        """Gradient passes an image; the point after the last step gets one too, which tells its loss."""
        return (self.steps + 1) * self.restarts * self.realizations

    @property
    def forwards(self) -> int:
        """Forward passes an image, for comparing two points of each restart at checkpoints and at the end."""
        checked = self.fresh * len(checkpoints(self.steps)) * self.realizations
        return 2 * self.restarts * (checked + selection_draws(self))


def checkpoints(steps: int) -> set[int]:
    """After which steps APGD looks at its step sizes: at first seldom, then often."""
    found, percent, distance = set(), FIRST_CHECKPOINT, FIRST_CHECKPOINT
    while percent <= 100:
        found.add(-(-percent * steps // 100))
        distance = max(distance - SHORTER, SHORTEST)
        percent += distance
    return found


@dataclass(frozen=True)
class SquareSettings:
    """
    Attributes:
        epsilon: radius of the l-infinity ball.
        queries: squares that are tried.
        draws: realizations, fresh ones for each query, on whose mean the image and the tried one are compared.
        p_init: share of the image's area that the first squares cover.
        fresh: False keeps an image's answer until a square changes it, which takes half the passes and is the same
            where the model draws nothing. Where it draws, the search would stall at a lucky answer.
    """

    epsilon: float = 8 / 255
    queries: int = 1000
    draws: int = 10
    p_init: float = 0.8
    fresh: bool = True

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, "linf")
        check_integer("queries", self.queries, 1)
        check_integer("draws", self.draws, 1)
        check_number("p_init", self.p_init, lambda share: 0 < share <= 1, "above 0, at most 1")

    @property
    def gradients(self) -> int:
        return 0

    @property
    def forwards(self) -> int:
        """Forward passes an image: two for each query and draw, or one and that of the start."""
        return (2 * self.queries if self.fresh else self.queries + 1) * self.draws


GradientSettings = PGDSettings | APGDSettings


def selection_draws(settings: GradientSettings) -> int:
    return settings.realizations if settings.selection is None else settings.selection


def check_gradient_settings(settings: GradientSettings) -> None:
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
    if norm == "linf":
        check_number("epsilon", epsilon, lambda size: 0 <= size <= 1, "in [0, 1], on the scale of pixels in [0, 1]")
    else:
        check_number("epsilon", epsilon, lambda size: size >= 0, "at least 0")
