"""Gradients of a training step from a graph: which steps it replays, and that it changes nothing.

A stand-in takes the place of the CUDA graph: it records without changing anything, and computes again at each replay,
on the same tensors. ``test_graphs_on_a_gpu`` uses real graphs.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.nn.classifiers import DropoutResNet32
from neuroae.training import TrainingSettings, gradients, train_supervised
from neuroae.training.adversarial import RECIPES, AdversarialClassification
from neuroae.training.methods import Classification, Supervised

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05)


class StandIn:
    """Records and replays like a CUDA graph, for one task."""

    def __init__(self, task: nn.Module) -> None:
        self.task, self.replays = task, 0

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        # A recording runs nothing, so buffers stay as they are.
        before = copy.deepcopy(self.task.state_dict())
        static = function()
        filled = [*(part for part in static if part is not None), *self.gradients()]
        self.task.load_state_dict(before)

        def replay() -> None:
            self.replays += 1
            results = function()
            computed = [*(part for part in results if part is not None), *self.gradients()]
            with torch.no_grad():
                for target, result in zip(filled, computed, strict=True):
                    target.copy_(result)

        return replay, type(static)(*(None if part is None else part.detach() for part in static))

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.task.parameters() if parameter.grad is not None]


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").limited(44)


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Makes trainings record graphs, and returns the stand-ins."""
    stand_ins: list[StandIn] = []
    record = gradients.Gradients.record

    def recording(self: gradients.Gradients, inputs: tuple[Tensor, ...]) -> None:
        stand_ins.append(StandIn(self.module))
        monkeypatch.setattr(gradients, "record_graph", stand_ins[-1].record)
        record(self, inputs)

    monkeypatch.setattr(gradients.Gradients, "record", recording)
    monkeypatch.setattr(gradients, "records_graphs", lambda device: True)
    return stand_ins


def untrained() -> Defense:
    """Returns a model with running statistics, which a step changes."""
    torch.manual_seed(0)
    encoder = SparseEncoder(unit_atoms(20, 1, 4), top_t=5, dropout_p=0.5)
    return Defense(encoder, Decoder(20, 4, 2, 8, 1), resnet32(10, in_channels=1, mean=(0.3,), std=(0.4,)))


def trained(data: ImageSet) -> tuple[Defense, list[Any]]:
    model = untrained()
    return model, train_supervised(model, data, SETTINGS)


def test_a_graph_changes_nothing(digits: ImageSet, graph: list[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch is five batches of 8 images and one of 4, which is computed eagerly between replays."""
    with_graph, epochs = trained(digits)
    assert [stand_in.replays for stand_in in graph] == [2 * 5 - gradients.STEPS_BEFORE]
    monkeypatch.setattr(gradients, "records_graphs", lambda device: False)
    eager, expected = trained(digits)
    assert len(graph) == 1
    assert epochs == expected
    for name, tensor in eager.state_dict().items():
        assert torch.equal(with_graph.state_dict()[name], tensor), name


def test_a_recording_that_fails_leaves_the_training_eager(
    digits: ImageSet, graph: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: StandIn, function: Callable[[], Any]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(StandIn, "record", refuse)
    with pytest.warns(UserWarning, match=r"without a CUDA graph, and may be slower: operation not .* capturing$"):
        _, epochs = trained(digits)
    assert len(graph) == 1
    monkeypatch.setattr(gradients, "records_graphs", lambda device: False)
    assert trained(digits)[1] == epochs


class Foreign(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def test_only_modules_that_do_the_same_in_every_call_are_recorded() -> None:
    """Attacks and dropout of a classifier draw on the host."""
    tasks = {"ours": Supervised(untrained()), "with a hook": Supervised(untrained()), "foreign": Foreign()}
    tasks["with a hook"].model.classifier.register_forward_hook(lambda *_: None)
    tasks["dropout"] = Classification(DropoutResNet32())
    tasks["adversarial"] = AdversarialClassification(resnet32(), RECIPES["pgd-at"], 8 / 255)
    recorded = [name for name, task in tasks.items() if gradients.Gradients(task, "float32").can_record]
    assert recorded == ["ours"]


def test_the_cpu_has_no_graphs() -> None:
    assert not gradients.records_graphs(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits with cuDNN's deterministic algorithms."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    states = []
    for records in (True, False):
        monkeypatch.setattr(gradients, "records_graphs", lambda device, records=records: records)
        model = untrained().cuda()
        train_supervised(model, digits, SETTINGS)
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
