"""Steps of training and of an attack do not make the host wait for a GPU: found on the CPU, with idle kernels."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.attacks.eot import estimate_gradient
from neuroae.kernels import OPERATIONS, registration
from neuroae.training import TrainingSettings
from neuroae.training.batches import Batch
from neuroae.training.gradients import Gradients
from neuroae.training.history import Meter
from neuroae.training.loop import make_state, step
from neuroae.training.methods import Supervised
from neuroae.utils.contexts import frozen
from waits import no_waits


def idle(declaration: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an operation that checks its arguments, and returns zeros."""

    def run(*arguments: Any) -> Any:
        outputs = declaration(*arguments)
        for output in (outputs,) if isinstance(outputs, Tensor) else outputs:
            output.zero_()
        return outputs

    return run


@pytest.fixture(autouse=True)
def idle_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SimpleNamespace(**{name: idle(declaration) for name, declaration in OPERATIONS.items()})
    monkeypatch.setattr(registration, "load_backend", lambda name: backend)


@pytest.fixture
def model() -> Defense:
    return Defense(SparseEncoder(unit_atoms(40, 3, 4), top_t=5), Decoder(40), resnet32()).eval()


def test_a_training_step(model: Defense) -> None:
    task = Supervised(model).train()
    state, meter = make_state(task, TrainingSettings(), 100), Meter()
    batch = Batch(torch.rand(4, 3, 32, 32), torch.arange(4), torch.arange(4), 1, 1.0)
    gradients = Gradients(task, "float32")
    with no_waits():
        step(gradients, state, batch, meter)


@pytest.mark.parametrize("surrogate", ["smooth", "selection", "autoencoder-identity"])
def test_a_step_of_an_attack(model: Defense, surrogate: str) -> None:
    attacked = model.with_surrogate(surrogate)
    images, ids = torch.rand(4, 3, 32, 32), torch.arange(4)
    with frozen(attacked), no_waits():
        estimate_gradient(
            attacked,
            images,
            ids,
            None,
            3,
            realizations=3,
            seed=1,
            image_ids=ids,
            chunk=None,
            average="normalized",
            loss="cross-entropy",
        )
