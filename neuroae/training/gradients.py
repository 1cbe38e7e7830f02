"""The gradients of a training step: computed eagerly, or replayed from a CUDA graph where shapes repeat.

A step of 64 images is some hundred launches, which take Python longer than a GPU needs to run them. A CUDA graph
launches all of them at once, and computes the same bits. The optimizer stays outside, since its learning rate changes.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..utils import distributed
from ..utils.contexts import autocast
from ..utils.modules import is_altered
from .batches import Batch

# Eager steps with one shape before its graph: cuDNN tries out its algorithms, and Triton compiles its kernels.
STEPS_BEFORE = 3
# The classes whose calls do the same on the device every time, and take a seed in a tensor: ours by name, and all of
# PyTorch's. Others may draw on the host, and a graph would repeat that draw.
RECORDED = (
    *(f"neuroae.training.methods.{name}" for name in ("Classification", "Supervised", "Regression")),
    "neuroae.training.methods.FrozenAutoencoder",
    "neuroae.nn.defense.Defense",
    "neuroae.nn.encoder.SparseEncoder",
    "neuroae.nn.decoder.Decoder",
    "neuroae.nn.convolutions.SparseConvTranspose2d",
    "neuroae.nn.convolutions.WinogradConvTranspose2d",
    "neuroae.nn.classifiers.ResNet32",
    "neuroae.nn.classifiers.PreActivationUnit",
)


class Gradients:
    """Computes a task's loss and logits of a batch, and leaves the gradients at its parameters.

    On a GPU, and in one process, the first shape that occurs often enough gets a graph. Other shapes, such as that of
    an epoch's last batch, are computed eagerly, and so are tasks with other modules than ``RECORDED``.

    Args:
        module: The task; with several processes it is wrapped, to average gradients.
        precision: The precision of decoder and classifier.
    """

    def __init__(self, module: nn.Module, precision: str) -> None:
        self.module, self.precision = module, precision
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.seen: dict[tuple[Any, ...], int] = {}
        self.graph: StepGraph | None = None
        self.can_record = is_repeatable(module)

    def __call__(self, batch: Batch) -> Any:
        """Returns the task's ``Objective``. It holds until the next call."""
        device = batch.images.device
        if not (self.can_record and records_graphs(device) and batch.weight == 1):
            return self.compute(batch.images, batch.labels, batch.ids, batch.seed, batch.weight)
        inputs = (batch.images, batch.labels, batch.ids, torch.full((), batch.seed, dtype=torch.int64, device=device))
        shape = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self.seen[shape] = self.seen.get(shape, 0) + 1
        if self.graph is None and self.seen[shape] > STEPS_BEFORE:
            self.record(inputs)
        if self.graph is not None and self.graph.shape == shape:
            return self.graph.replay(inputs)
        return self.compute(batch.images, batch.labels, batch.ids, batch.seed, batch.weight)

    def compute(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int | Tensor, weight: float) -> Any:
        """Computes loss, logits and gradients eagerly."""
        with autocast(self.precision, images.device):
            objective = self.module(images, labels, ids, seed)
        for parameter in self.parameters:
            parameter.grad = None
        (objective[0] * weight).backward()
        return objective

    def record(self, inputs: tuple[Tensor, ...]) -> None:
        """Records the graph for the shape of these inputs, or goes on without graphs."""
        try:
            self.graph = StepGraph(functools.partial(self.compute, weight=1.0), inputs, self.parameters)
        except RuntimeError as error:
            self.can_record = False
            reason = str(error).partition("\n")[0]
            warnings.warn(f"training goes on without a CUDA graph, and may be slower: {reason}", stacklevel=2)


class StepGraph:
    """One recorded computation of loss, logits and gradients, on tensors that stay where they are.

    Args:
        compute: The function of the inputs.
        inputs: Tensors of the shapes to record.
        parameters: The parameters that get gradients.

    Attributes:
        shape: The shapes and dtypes of the inputs.
    """

    def __init__(
        self, compute: Callable[..., Any], inputs: tuple[Tensor, ...], parameters: list[nn.Parameter]
    ) -> None:
        self.shape = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self.inputs, self.parameters = tuple(tensor.clone() for tensor in inputs), parameters
        self.run, self.objective = record_graph(lambda: compute(*self.inputs))
        self.gradients = [parameter.grad for parameter in parameters]

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        """Computes with these inputs."""
        for static, tensor in zip(self.inputs, inputs, strict=True):
            static.copy_(tensor)
        self.run()
        # An eager step in between may have replaced the gradients.
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.objective


def is_repeatable(module: nn.Module) -> bool:
    """Returns whether a graph may repeat a call of the module: its parts are known, and have no hooks."""

    def is_known(part: nn.Module) -> bool:
        name = f"{type(part).__module__}.{type(part).__qualname__}"
        return (name in RECORDED or name.startswith("torch.nn.")) and not is_altered(part)

    return all(is_known(part) for part in module.modules())


def records_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None and distributed.world_size() == 1


def record_graph(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Records the kernels that a function launches, without running them.

    Returns:
        The function that launches the kernels again, and the result, whose tensors every launch fills.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        result = function()
    return graph.replay, result
