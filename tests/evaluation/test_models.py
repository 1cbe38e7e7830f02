"""Models to evaluate: folders, shipped names, and functions of the user."""

import importlib
import linecache
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import Linear, small_defense
from neuroae import Defense
from neuroae.evaluation.models import is_random, load_model, require_fixable
from neuroae.models.fingerprints import fingerprint
from saved_models import small_model
from small_evaluation import random_data

MODULE = """
import torch
from torch import Tensor, nn

def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()

def with_default(size=64):
    return nn.Linear(size, 10).eval()

def training():
    return nn.Linear(64, 10)

def needs(path, *rest, size=3):
    return nn.Linear(64, 10)

def number():
    return 7

constant = 5
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes a module with an unused name into the current folder."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_library")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_folder_is_loaded(tmp_path: Path) -> None:
    model = small_model("defense")
    model.save_pretrained(tmp_path / "saved")
    assert fingerprint(load_model(str(tmp_path / "saved"))) == fingerprint(model)


@pytest.mark.parametrize("function", ["model", "with_default"])
def test_a_function_in_the_current_folder_is_called(mine: str, function: str) -> None:
    before = list(sys.path)
    model = load_model(f"{mine}:{function}")
    assert isinstance(model, nn.Module)
    assert not model.training
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{}:other", ValueError, "module {} has no function 'other'"),
        ("{}:constant", ValueError, "module {} has no function 'constant'"),
        ("{}:", ValueError, "module {} has no function ''"),
        ("{}:needs", ValueError, "{}:needs takes path, expected a function without arguments"),
        ("{}:number", ValueError, "{}:number returned a int, expected a torch.nn.Module"),
        ("{}:training", ValueError, "{}:training returned a model in training mode"),
        ("{}_nowhere:model", ImportError, "there is no module '{}_nowhere' in "),
        ("nowhere.{}:model", ImportError, "there is no module 'nowhere.{}' in "),
        ("{}_broken:model", ModuleNotFoundError, "No module named 'no_such_library'"),
        ("nowhere", FileNotFoundError, "unknown name 'nowhere'"),
    ],
)
def test_what_is_no_model_is_refused(mine: str, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        load_model(name.format(mine))
    assert message.format(mine) in str(raised.value)


class Noisy(Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + 0.01 * torch.randn(10)


class InPlace(Linear):
    """Normalizes its input."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(0.5))


def test_a_model_that_changes_its_images_does_not_draw() -> None:
    assert not is_random(InPlace(1, 8, 10).eval(), random_data(20))


def test_a_model_that_seldom_draws_is_random() -> None:
    class Seldom(Linear):
        def forward(self, images: Tensor) -> Tensor:
            noise = torch.randn(()) if torch.rand(()) < 0.3 else torch.zeros(())
            return super().forward(images) + noise * torch.arange(10)

    assert is_random(Seldom(1, 8, 10).eval(), random_data(20))


@pytest.mark.parametrize(
    ("model", "random"),
    [
        (small_defense(), True),
        (small_defense(dropout_p=0.0), False),
        (Linear(1, 8, 10), False),
        (Noisy(1, 8, 10), True),
    ],
    ids=["defense", "defense without dropout", "classifier", "noisy classifier"],
)
def test_random_models_are_told_by_their_answers(model: nn.Module, random: bool) -> None:
    assert is_random(model.eval(), random_data(20)) == random


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Linear(1, 8, 3), "class 9, expected below 3"),
        (nn.Flatten(0), r"answers with shape \(512,\), expected logits \(8, classes\)"),
    ],
    ids=["too few classes", "no logits"],
)
def test_answers_that_are_no_logits_of_the_classes_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        is_random(model.eval(), random_data(20))


def test_masks_are_fixed_by_seed_and_image_id_alone() -> None:
    require_fixable("some", small_defense())
    with pytest.raises(ValueError, match="noisy draws, but not by seed and image id"):
        require_fixable("noisy", Noisy(1, 8, 10))


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_fingerprints_follow_weights_and_settings(kind: str) -> None:
    model = small_model(kind)
    digest = fingerprint(model)
    assert fingerprint(model) == digest
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    changed = fingerprint(model)
    assert changed != digest
    classifier = model.classifier if kind == "defense" else model
    classifier.bn1.running_mean += 0.1
    statistics = fingerprint(model)
    classifier.mean += 0.1
    assert len({digest, changed, statistics, fingerprint(model)}) == 4


def test_fingerprints_follow_the_gradient() -> None:
    model = small_defense()
    digest = {fingerprint(model.with_surrogate(name)) for name in ("identity", "smooth", "autoencoder-identity")}
    assert len(digest) == 3


USERS = """
from torch import nn


class Base(nn.Linear):
    def forward(self, images):
        return super().forward(images) * {factor}


class Mine(Base):
    def __init__(self, *noise):
        super().__init__(2, 2)
        nn.init.ones_(self.weight)
        nn.init.ones_(self.bias)
        self._noise = noise
"""


def test_fingerprints_of_unknown_models_follow_what_they_keep_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprints include attributes beside the weights, and the code of base classes."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(factor: int, *noise: float) -> str:
        (tmp_path / "usersmodel.py").write_text(USERS.format(factor=factor))
        monkeypatch.delitem(sys.modules, "usersmodel", raising=False)
        linecache.clearcache()
        importlib.invalidate_caches()
        return fingerprint(importlib.import_module("usersmodel").Mine(*noise))

    assert digest(2, 0.1) == digest(2, 0.1)
    assert len({digest(2, 0.1), digest(2, 0.5), digest(30, 0.1)}) == 3


def negative(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (1 - inputs[0],)


def halved(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] / 2,)


class Keeping(nn.Module):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)
        self.value = value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(torch.tensor([0.1]), torch.tensor([0.9]), id="tensor"),
        pytest.param(torch.tensor([0.1]).bfloat16(), torch.tensor([0.9]).bfloat16(), id="bfloat16"),
        pytest.param(np.float32(0.1), np.float32(0.9), id="numpy"),
        pytest.param(torch.relu, torch.tanh, id="function of torch"),
        pytest.param(negative, halved, id="function"),
        pytest.param([0.1, torch.zeros(2)], [0.1, torch.ones(2)], id="list"),
        pytest.param({"a": (1, None)}, {"a": (2, None)}, id="dictionary"),
    ],
)
def test_fingerprints_follow_what_a_module_keeps(first: object, second: object) -> None:
    def digest(value: object) -> str:
        torch.manual_seed(0)
        return fingerprint(Keeping(value))

    assert digest(first) == digest(first)
    assert digest(first) != digest(second)


@pytest.mark.parametrize("part", ["", "classifier"])
def test_fingerprints_follow_hooks_and_assigned_forwards(part: str) -> None:
    def make_model() -> Defense:
        torch.manual_seed(0)
        return small_model("defense")

    def hooked(hook: object) -> str:
        model = make_model()
        model.get_submodule(part).register_forward_pre_hook(hook)  # type: ignore[arg-type]
        return fingerprint(model)

    model = make_model()
    plain = fingerprint(model)
    model.get_submodule(part).forward = negative  # type: ignore[method-assign,assignment]
    assert hooked(negative) == hooked(negative)
    assert len({plain, hooked(negative), hooked(halved), fingerprint(model)}) == 4


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_fingerprints_of_traced_models_follow_the_graph() -> None:
    class Times(nn.Module):
        def __init__(self, factor: int) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, images: Tensor) -> Tensor:
            return images * self.factor

    two, again, three = (torch.jit.trace(Times(factor), torch.rand(2)) for factor in (2, 2, 3))
    assert fingerprint(two) == fingerprint(again) != fingerprint(three)


def test_fingerprints_of_unknown_models_do_not_depend_on_addresses() -> None:
    class Called(nn.Module):
        def __init__(self, function: object) -> None:
            super().__init__()
            self.function = function

        def extra_repr(self) -> str:
            return repr(self.function)

    assert "0x" in repr(Called(object()))
    assert fingerprint(Called(object())) == fingerprint(Called(object()))
    assert fingerprint(Called(7)) != fingerprint(Called(8))
