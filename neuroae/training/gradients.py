"""The gradients of a training step: computed eagerly, or replayed from a CUDA graph where shapes repeat.

The optimizer stays outside of the graph, since its learning rate changes.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.contexts import autocast
from ..utils.graphs import LAYERS, Repeated, is_repeatable, records_graphs
from .batches import Batch

# Eager steps with one shape before its graph: cuDNN tries out its algorithms, and Triton compiles its kernels.
STEPS_BEFORE = 3
METHODS = "neuroae.training.methods"
TASKS = tuple(f"{METHODS}.{name}" for name in ("Classification", "Supervised", "Regression", "FrozenAutoencoder"))


class Gradients:
    """Computes a task's loss and logits of a batch, and leaves the gradients at its parameters.

    On a GPU, and in one process, steps are replayed from a graph where shapes repeat (``Repeated``). Tasks with other
    modules than ``TASKS`` and ``LAYERS`` are computed eagerly.

    Args:
        module: The task; with several processes it is wrapped, to average gradients.
        precision: The precision of decoder and classifier.
    """

    def __init__(self, module: nn.Module, precision: str) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # No method, which would hold this object in a circle, and with it the threads of the wrapped module's group:
        # they may abort the process at its end.
        self.compute = functools.partial(compute, module, precision, self.parameters)
        self.can_record = is_repeatable(module, (*TASKS, *LAYERS))
        self.repeated = Repeated(functools.partial(self.compute, weight=1.0), STEPS_BEFORE, "training")

    def __call__(self, batch: Batch) -> Any:
        """Returns the task's ``Objective``. It holds until the next call."""
        device = batch.images.device
        if not (self.can_record and records_graphs(device) and batch.weight == 1):
            objective, _ = self.compute(batch.images, batch.labels, batch.ids, batch.seed, weight=batch.weight)
            return objective
        seed = torch.full((), batch.seed, dtype=torch.int64, device=device)
        objective, gradients = self.repeated(batch.images, batch.labels, batch.ids, seed)
        # A replay fills the tensors of its recording, and an eager step in between may have replaced them.
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return objective


def compute(
    module: nn.Module,
    precision: str,
    parameters: list[nn.Parameter],
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    seed: int | Tensor,
    weight: float,
) -> tuple[Any, tuple[Tensor | None, ...]]:
    """Computes the task's objective, and the gradients, which it leaves at the parameters; returns both."""
    with autocast(precision, images.device):
        objective = module(images, labels, ids, seed)
    for parameter in parameters:
        parameter.grad = None
    (objective[0] * weight).backward()
    return objective, tuple(parameter.grad for parameter in parameters)
