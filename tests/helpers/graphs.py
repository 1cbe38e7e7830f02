"""A stand-in for CUDA graphs on the CPU, as strict as they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from neuroae.attacks import steps
from neuroae.training import gradients
from neuroae.utils import graphs
from waits import no_waits


class Recorder(TorchDispatchMode):
    """Notes the operations that the block runs, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class StandIn:
    """Records a function's operations, and runs the same ones on the same tensors at each replay.

    Python runs only in the recording: numbers stay as they were in it. An operation that reads values on the host, for
    which a GPU would make it wait, is an error.

    Args:
        module: The module whose parameters and buffers a recording leaves as they were, since it runs nothing.

    Attributes:
        recordings: The number of recordings.
        replays: The number of replays.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self.module, self.recordings, self.replays = module or nn.Identity(), 0, 0

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recordings += 1
        before = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        with no_waits(), Recorder() as recorder:
            static = function()
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(before[name])
            # Results have no values until the first replay.
            for tensor in tensors(static):
                tensor.fill_(-1)

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, result in recorder.calls:
                for target, computed in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                    if target.data_ptr() != computed.data_ptr():  # neither a view nor a change in place
                        target.copy_(computed)

        return replay, tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, static)


def tensors(tree: Any) -> list[Tensor]:
    return [part for part in tree_flatten(tree)[0] if isinstance(part, Tensor)]


def record_on_the_cpu(monkeypatch: pytest.MonkeyPatch, record: Callable[..., Any]) -> None:
    """Makes training and attacks record graphs on the CPU, by this function in place of ``record_graph``."""
    monkeypatch.setattr(graphs, "record_graph", record)
    records_graphs(monkeypatch, True)


def records_graphs(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Makes training and attacks record graphs on every device, or on none."""
    for module in (gradients, steps):
        monkeypatch.setattr(module, "records_graphs", lambda device: wanted)
