"""The gradients of an attack's steps: computed eagerly, or replayed from a CUDA graph where shapes repeat."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.graphs import LAYERS, Repeated, is_repeatable, records_graphs, state_of
from .checks import highest_class
from .eot import Average, GradientEstimate, estimate_gradient
from .losses import LossName

# Classes that do the same on the device in every call in evaluation mode, beside ``LAYERS``.
CLASSIFIERS = (
    "neuroae.nn.front_ends.FrontEndClassifier",
    "neuroae.nn.front_ends.GaussianBlur",
    "neuroae.nn.front_ends.KSparseAutoencoder",
    "neuroae.nn.efficientnet.EfficientNetB0",
    "torchvision.models.efficientnet.EfficientNet",
    "torchvision.models.efficientnet.MBConv",
    "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.ops.misc.SqueezeExcitation",
    "torchvision.ops.stochastic_depth.StochasticDepth",
)
# PyTorch's modules that draw from its generators in evaluation mode, too.
DRAWING = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


class Recordings:
    """The recording of the latest attack, for the next one if that has the same model and settings."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.repeated: Repeated | None = None

    def get(self, key: tuple[Any, ...], make: Callable[[], Repeated]) -> Repeated:
        """Returns the latest recording if its key is the same, and otherwise makes one in its place."""
        if self.repeated is None or key != self.key:
            self.key, self.repeated = key, None
            self.repeated = make()
        return self.repeated


SHARED: ContextVar[Recordings | None] = ContextVar("SHARED", default=None)


@contextmanager
def shared_graphs() -> Iterator[None]:
    """Lets attacks that follow each other in the block share one graph, if model, settings and shapes are the same.

    Recording takes as long as a few steps. The latest graph and its memory stay until the block ends.
    """
    token = SHARED.set(Recordings())
    try:
        yield
    finally:
        SHARED.reset(token)


class StepGradients:
    """Estimates the gradient of one model at one batch of points after another, with fresh draws in each step.

    On a GPU, and in one process, the first step is eager, and the others are replayed from a graph, if the model is
    ``is_recordable``. They give the same bits. An object serves one attack, in which the model does not change; inside
    ``shared_graphs`` it may replay the graph of the attack before.

    Args:
        model: The attacked model, frozen in every call, and in evaluation mode.
        labels, targets, image_ids: (rows,) int64, as in ``eot_gradient``, for the rows of every step.
        realizations, chunk, average, loss: As in ``eot_gradient``.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Tensor,
        targets: Tensor | None,
        image_ids: Tensor,
        *,
        realizations: int,
        chunk: int | None,
        average: Average,
        loss: LossName,
    ) -> None:
        self.labels, self.targets, self.image_ids = labels, targets, image_ids
        self.highest, self.is_first = highest_class(labels, targets), True
        self.estimate = partial(
            estimate_gradient, model, realizations=realizations, chunk=chunk, average=average, loss=loss
        )
        self.repeated: Repeated | None = None
        if records_graphs(labels.device) and is_recordable(model):
            key = (realizations, chunk, average, loss, targets is None, *state_of(model))
            # A function that knows nothing of this object, so that graph and memory do not wait for a collector.
            function = partial(estimate_by_tensors, self.estimate)
            recordings = SHARED.get() or Recordings()
            self.repeated = recordings.get(key, lambda: Repeated(function, 0, "the attack"))

    def __call__(self, points: Tensor, seed: int) -> GradientEstimate:
        """Returns the estimate at these points, (rows, C, H, W); the seed is that of the step's draws."""
        if self.repeated is None or self.is_first:
            # cuDNN tries out its algorithms here, and Triton compiles its kernels.
            self.is_first = False
            return self.estimate(points, self.labels, self.targets, self.highest, seed=seed, image_ids=self.image_ids)
        inputs = [points, self.labels, self.image_ids, torch.full((), seed, dtype=torch.int64, device=points.device)]
        if self.targets is not None:
            inputs.append(self.targets)
        # Copies, since attacks keep estimates, and the next step fills the same tensors.
        return GradientEstimate(*(part.clone() for part in self.repeated(*inputs)))


def estimate_by_tensors(
    estimate: "partial[GradientEstimate]",
    points: Tensor,
    labels: Tensor,
    image_ids: Tensor,
    seed: Tensor,
    targets: Tensor | None = None,
) -> GradientEstimate:
    """Estimates a gradient; all that changes between steps is in tensors. The first step has checked the classes."""
    return estimate(points, labels, targets, 0, seed=seed, image_ids=image_ids)


def is_recordable(model: nn.Module) -> bool:
    """Returns whether a graph may repeat steps on this model: its parts are known, and draw by seeds alone.

    A graph would not seed torch's generators anew for each realization.
    """
    draws = any(part.training or isinstance(part, DRAWING) for part in model.modules())
    return not draws and is_repeatable(model, (*LAYERS, *CLASSIFIERS))
