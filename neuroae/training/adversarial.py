"""Adversarial training of classifiers: PGD, R+FGSM and TRADES, the benchmarks of the paper (section 5.1)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..attacks.balls import project_linf, random_linf
from ..attacks.settings import R_FGSM_STEP
from ..data import ImageSet
from ..utils.randomness import derive_seed, random_uniform
from .history import Epoch
from .loop import Run, fit
from .methods import Objective, cross_entropy
from .settings import Schedule, TrainingSettings

AdversarialMethod = Literal["pgd-at", "r-fgsm-at", "trades"]
METHODS: tuple[AdversarialMethod, ...] = get_args(AdversarialMethod)
EPSILON = 8 / 255
# TRADES starts at normal noise of this size, since its loss has no gradient at the image itself.
TRADES_NOISE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How a method crafts the images that it learns from, and its published schedule for CIFAR-10.

    Attributes:
        steps: The number of gradient steps.
        step_size: Their size, as a multiple of epsilon.
        random_start: Whether the first step starts at a uniform point of the ball.
        beta: The weight of the divergence in TRADES's loss; None for cross-entropy of the attacked images alone.
        epochs, learning_rate, schedule: The published schedule.
    """

    steps: int
    step_size: float
    random_start: bool
    beta: float | None
    epochs: int
    learning_rate: float
    schedule: Schedule


RECIPES: dict[AdversarialMethod, Recipe] = {
    "pgd-at": Recipe(10, 1 / 8, False, None, 100, 0.05, "triangular"),
    "r-fgsm-at": Recipe(1, R_FGSM_STEP, True, None, 100, 0.05, "triangular"),
    "trades": Recipe(10, 1 / 8, False, 6.0, 76, 0.01, "stepwise"),
}


def train_adversarial(
    classifier: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    method: AdversarialMethod,
    run: Run | None = None,
    validation: ImageSet | None = None,
    epsilon: float = EPSILON,
) -> list[Epoch]:
    """Trains a classifier on images that are attacked in every step, and leaves it in evaluation mode.

    Accuracies of the epochs are those of attacked images; held-out images are attacked in the same way.

    Args:
        classifier, data, settings, run, validation: See ``train_plain``.
        method: "pgd-at" (Madry et al., 2018), "r-fgsm-at" (Wong et al., 2020) or "trades" (Zhang et al., 2019).
        epsilon: The l-infinity budget of the attacks, on the scale of pixels in [0, 1].

    Returns:
        The epochs.

    Raises:
        BlockingIOError, FloatingPointError, TypeError: See ``loop.fit``.
        ValueError: The method is unknown, or see ``loop.fit``.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    recipe = RECIPES[method]
    kind = AdversarialClassification if recipe.beta is None else Trades
    return fit(kind(classifier, recipe, epsilon), data, settings, "classifier", run, validation)


class AdversarialClassification(nn.Module):
    """Cross-entropy of a classifier on attacked images.

    Args:
        classifier: From images (B, C, H, W) in [0, 1] to logits.
        recipe: The attack.
        epsilon: Its l-infinity budget.
    """

    def __init__(self, classifier: nn.Module, recipe: Recipe, epsilon: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.recipe = recipe
        self.epsilon = epsilon

    def extra_repr(self) -> str:
        return f"{self.recipe}, epsilon={self.epsilon:.5g}"

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        start = images
        if self.recipe.random_start:
            start = random_linf(images, self.epsilon, derive_seed(seed, "start"), ids)
        attacked = self.attack(images, start, lambda logits: F.cross_entropy(logits.float(), labels))
        return cross_entropy(self.classifier(attacked), labels)

    def attack(self, images: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns images that raise the loss of their logits, by steps along the gradient's sign (eq. 4)."""
        points, size = start.detach(), self.recipe.step_size * self.epsilon
        with torch.enable_grad(), without_tracking(self.classifier):
            for _ in range(self.recipe.steps):
                points.requires_grad_()
                (gradient,) = torch.autograd.grad(loss(self.classifier(points)), points)
                points = project_linf(points.detach() + size * gradient.sign(), images, self.epsilon)
        return points


class Trades(AdversarialClassification):
    """Cross-entropy of clean images, and beta times the divergence of attacked ones from them."""

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        assert self.recipe.beta is not None
        with torch.no_grad(), without_tracking(self.classifier):
            clean = self.classifier(images)
        # The lowest draw, 0, would give an infinite normal deviate.
        uniform = random_uniform(derive_seed(seed, "start"), ids, tuple(images.shape[1:])).clamp(min=2**-25)
        start = images + TRADES_NOISE * torch.special.ndtri(uniform)
        attacked = self.attack(images, start, lambda logits: divergence(clean, logits))
        clean, logits = self.classifier(images), self.classifier(attacked)
        objective = cross_entropy(clean, labels)
        loss = objective.loss + self.recipe.beta * divergence(clean, logits)
        return objective._replace(loss=loss, logits=logits.detach())


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """Returns the mean Kullback-Leibler divergence of predictions on clean images from those on attacked ones.

    Args:
        clean, attacked: (B, classes) logits.
    """
    target, prediction = clean.float().log_softmax(-1), attacked.float().log_softmax(-1)
    return F.kl_div(prediction, target, reduction="batchmean", log_target=True)


@contextmanager
def without_tracking(model: nn.Module) -> Iterator[None]:
    """Keeps batch normalizations in training mode from updating their running statistics within the block.

    Attacks of a step use the statistics of its batch, like the step itself, and leave no trace. Running statistics
    would depend on the process, and a resumed training of several processes would differ.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    tracked = [layer for layer in layers if layer.track_running_stats]
    for layer in tracked:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in tracked:
            layer.track_running_stats = True
