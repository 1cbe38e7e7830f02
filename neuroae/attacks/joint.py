"""Several models as one source of a transfer attack."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.modules import takes_seeds
from .protocol import Realize, realizer


class JointSources(nn.Module):
    """Models whose gradients are added up, each divided by its l2 norm: what fools all of them transfers better.

    The answers are the mean of the models' log-probabilities.

    Args:
        models: The sources, in evaluation mode. Those that draw by seed and image id are given both.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        # Not by eval(), which models with a fixed mode do not have.
        self.training = self.models.training = False

    def forward(self, images: Tensor, seed: int = 0, image_ids: Tensor | None = None) -> Tensor:
        """Returns the mean log-probabilities (B, classes) of the models."""
        draws: dict[str, Any] = {"seed": seed, "image_ids": image_ids}
        return mean_log_probabilities(
            [model(images, **draws) if takes_seeds(model) else model(images) for model in self.models]
        )

    def shared_gradient(
        self, images: Tensor, seed: int, image_ids: Tensor, normalize: Callable[[Tensor], Tensor]
    ) -> "JointGradient":
        """Returns the sum of the sources' normalized gradients (see ``protocol.GradientOfRealizations``)."""
        return JointGradient([realizer(model, images, seed, image_ids) for model in self.models], images, normalize)


class JointGradient:
    """The mean over sources, summed over realizations, of the normalized gradients of one loss of all answers.

    Args:
        realizers: Of the sources.
        images: (B, C, H, W).
        normalize: From the gradients of realizations to what each adds to the sum.
    """

    def __init__(self, realizers: Sequence[Realize], images: Tensor, normalize: Callable[[Tensor], Tensor]) -> None:
        self.realizers, self.images, self.normalize = realizers, images, normalize
        self.total = torch.zeros_like(images)

    def logits(self, start: int, count: int) -> Tensor:
        """Returns the mean log-probabilities of these realizations, (count * B, classes)."""
        # A receiver for each source keeps their gradients apart.
        self.receivers = [self.images.repeat(count, 1, 1, 1).requires_grad_() for _ in self.realizers]
        pairs = zip(self.realizers, self.receivers, strict=True)
        return mean_log_probabilities([realize(start, count, receiver) for realize, receiver in pairs])

    def add(self, losses: Tensor) -> None:
        """Adds the gradients of the latest losses, (count * B,)."""
        ones = torch.ones_like(losses)
        gradients = torch.autograd.grad(losses, self.receivers, ones, allow_unused=True, materialize_grads=True)
        for gradient in gradients:
            for realization in self.normalize(gradient).split(len(self.images)):
                self.total += realization / len(gradients)
        del self.receivers

    def finish(self) -> Tensor:
        """Returns the sum over realizations, (B, C, H, W)."""
        return self.total


def mean_log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Returns the mean over models of the log-softmax of their logits, (B, classes)."""
    return torch.stack([each.float().log_softmax(-1) for each in logits]).mean(0)
