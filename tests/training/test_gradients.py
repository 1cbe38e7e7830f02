"""Gradients of a training step from a graph: which steps it replays, and that it changes nothing.

A stand-in takes the place of the CUDA graph. ``test_graphs_on_a_gpu`` uses real graphs.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dictionaries import unit_atoms
from graphs import StandIn, record_on_the_cpu, records_graphs
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.nn.classifiers import DropoutResNet32
from neuroae.training import TrainingSettings, gradients, train_supervised
from neuroae.training.adversarial import RECIPES, AdversarialClassification
from neuroae.training.methods import Classification, Supervised

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").limited(44)


def untrained() -> Defense:
    """Returns a model with running statistics, which a step changes."""
    torch.manual_seed(0)
    encoder = SparseEncoder(unit_atoms(20, 1, 4), top_t=5, dropout_p=0.5)
    return Defense(encoder, Decoder(20, 4, 2, 8, 1), resnet32(10, in_channels=1, mean=(0.3,), std=(0.4,)))


def trained(data: ImageSet) -> tuple[Defense, list[Any]]:
    model = untrained()
    return model, train_supervised(model, data, SETTINGS)


def test_a_graph_changes_nothing(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch is five batches of 8 images and one of 4, which is computed eagerly between replays."""
    with_graph, eager = untrained(), untrained()
    graph = StandIn(with_graph)
    record_on_the_cpu(monkeypatch, graph.record)
    epochs = train_supervised(with_graph, digits, SETTINGS)
    assert (graph.recordings, graph.replays) == (1, 2 * 5 - gradients.STEPS_BEFORE)
    records_graphs(monkeypatch, False)
    assert train_supervised(eager, digits, SETTINGS) == epochs
    assert graph.recordings == 1
    for name, tensor in eager.state_dict().items():
        assert torch.equal(with_graph.state_dict()[name], tensor), name


def test_a_recording_that_fails_leaves_the_training_eager(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = []

    def refuse(function: Callable[[], Any]) -> None:
        recordings.append(function)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    record_on_the_cpu(monkeypatch, refuse)
    with pytest.warns(UserWarning, match=r"^training goes on .* may be slower: operation not .* capturing$"):
        epochs = train_supervised(untrained(), digits, SETTINGS)
    assert len(recordings) == 1
    records_graphs(monkeypatch, False)
    assert train_supervised(untrained(), digits, SETTINGS) == epochs


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


def test_the_module_goes_with_its_gradients() -> None:
    """No circle of references keeps it: the threads of a wrapped module's group would go on to the process's end."""
    task = Classification(nn.Linear(2, 2))
    module = weakref.ref(task)
    held = gradients.Gradients(task, "float32")
    gc.disable()
    try:
        del task, held
        assert module() is None
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits with cuDNN's deterministic algorithms."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    states = []
    for records in (True, False):
        records_graphs(monkeypatch, records)
        model = untrained().cuda()
        train_supervised(model, digits, SETTINGS)
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
