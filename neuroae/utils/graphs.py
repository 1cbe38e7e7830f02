"""CUDA graphs of functions that are called again and again: recorded where shapes repeat, replayed with the same bits.

A step of a small batch is some hundred launches, which take Python longer than a GPU needs to run them. A CUDA graph
launches all of them at once. It repeats what the function did on the device: whatever changes between calls must be in
the tensors that the function takes, and what happens on the host happens once.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from . import distributed
from .contexts import autocast_dtype
from .modules import direct_tensors, is_altered, is_torch_module

# Our layers whose calls do the same on the device every time, and take a seed in a tensor.
LAYERS = (
    "neuroae.nn.defense.Defense",
    "neuroae.nn.encoder.SparseEncoder",
    "neuroae.nn.decoder.Decoder",
    "neuroae.nn.convolutions.SparseConvTranspose2d",
    "neuroae.nn.convolutions.WinogradConvTranspose2d",
    "neuroae.nn.classifiers.ResNet32",
    "neuroae.nn.classifiers.PreActivationUnit",
)
# The types of a module's attributes that are settings.
SETTINGS = (bool, int, float, str, tuple, type(None))


class Repeated:
    """A function of tensors that is computed eagerly, or replayed from a CUDA graph where shapes repeat.

    The first shapes that occur often enough get the graph. Calls with other shapes, such as those of a last batch, are
    eager, and so are all calls after a recording has failed.

    Args:
        function: From tensors on one GPU to a tuple of tensors, None and such tuples. It does the same on the device
            in every call (see ``is_repeatable``), and does not wait for it.
        eager_calls: The eager calls with some shapes before their graph. Libraries choose their algorithms in them,
            and Triton compiles its kernels.
        purpose: What goes on without a graph if the recording fails, for the warning.

    Attributes:
        graph: The graph, None before it is recorded.
        can_record: Whether no recording has failed.
    """

    def __init__(self, function: Callable[..., Any], eager_calls: int, purpose: str) -> None:
        self.function, self.eager_calls, self.purpose = function, eager_calls, purpose
        self.calls: dict[tuple[Any, ...], int] = {}
        self.graph: Graph | None = None
        self.can_record = True

    def __call__(self, *inputs: Tensor) -> Any:
        """Returns the function's result. The next call may overwrite its tensors."""
        shapes = shapes_of(inputs)
        self.calls[shapes] = self.calls.get(shapes, 0) + 1
        if self.graph is None and self.can_record and self.calls[shapes] > self.eager_calls:
            self.record(inputs)
        if self.graph is not None and self.graph.shapes == shapes:
            return self.graph.replay(inputs)
        return self.function(*inputs)

    def record(self, inputs: tuple[Tensor, ...]) -> None:
        """Records the graph for the shapes of these inputs, or goes on without graphs."""
        try:
            self.graph = Graph(self.function, inputs)
        except RuntimeError as error:
            self.can_record = False
            reason = str(error).partition("\n")[0]
            warnings.warn(f"{self.purpose} goes on without a CUDA graph, and may be slower: {reason}", stacklevel=3)


class Graph:
    """One recorded call of a function, on tensors that stay where they are.

    Args:
        function: The function.
        inputs: Tensors of the shapes to record.

    Attributes:
        shapes: The ``shapes_of`` the inputs.
    """

    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
        self.shapes = shapes_of(inputs)
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        self.run, self.result = record_graph(lambda: function(*self.inputs))

    def replay(self, inputs: tuple[Tensor, ...]) -> Any:
        """Computes with these inputs. The result's tensors are the same in every call."""
        for static, tensor in zip(self.inputs, inputs, strict=True):
            static.copy_(tensor)
        self.run()
        return self.result


def shapes_of(inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Returns what a recording depends on: the inputs' shapes, layouts, dtypes and places, and autocast's dtype."""
    described = ((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in inputs)
    return (autocast_dtype(inputs[0].device), *described)


def is_repeatable(module: nn.Module, names: Collection[str]) -> bool:
    """Returns whether a graph may repeat a call of the module: all its parts are known, and have no hooks.

    Args:
        module: The module.
        names: The full names of the classes that do the same on the device in every call. All of PyTorch's are known.
            Others may draw on the host, and a graph would repeat that draw.
    """

    def is_known(part: nn.Module) -> bool:
        name = f"{type(part).__module__}.{type(part).__qualname__}"
        return (name in names or is_torch_module(part)) and not is_altered(part)

    return not _has_any_global_hook() and all(is_known(part) for part in module.modules())


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """Returns what a recording takes from a module: its parts' classes and settings, and which tensors they hold.

    While the module exists, equal states mean that a graph of the one repeats calls of the other. Tensors count by
    identity, address and number of changes in place; values are not read.
    """
    return tuple(
        (
            type(part),
            *((name, value) for name, value in vars(part).items() if isinstance(value, SETTINGS)),
            *((name, id(tensor), tensor.data_ptr(), version(tensor)) for name, tensor in direct_tensors(part)),
        )
        for part in module.modules()
    )


def version(tensor: Tensor) -> int | None:
    """Returns how often a tensor was changed in place; None for tensors of inference mode, which do not count."""
    return None if tensor.is_inference() else tensor._version


def records_graphs(device: torch.device) -> bool:
    """Returns whether there are graphs: on NVIDIA's GPUs, in a single process."""
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
