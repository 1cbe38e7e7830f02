"""An evaluation's folder refuses a model whose answers have changed, wherever the change is."""

import importlib
import linecache
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import Linear, small_defense
from neuroae.attacks import PGDSettings
from neuroae.evaluation import Attack, Evaluation, Scoring, run_evaluation
from neuroae.models.fingerprints import fingerprint, state_fingerprint
from neuroae.utils.files import load_json, save_json
from saved_models import small_model
from small_evaluation import contents, random_data, small_evaluation

quantizing = pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore:.*TypedStorage.*")
OTHER_MODEL = r"manifest\.json belongs to another run: "


def clean(model: nn.Module) -> Evaluation:
    return Evaluation(model.eval(), random_data(6), [], Scoring(draws=1), 3)


def quantized(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


def closed_over(constant: float) -> nn.Module:
    torch.manual_seed(0)
    model = Linear(1, 8, 10)
    layer = model.forward
    model.forward = lambda images: layer(images + constant)  # type: ignore[method-assign]
    return model


class ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, images, factor):  # type: ignore[no-untyped-def]
        context.factor = factor
        return images.clone()

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        return gradient * context.factor, None


def with_gradient(factor: float) -> nn.Module:
    torch.manual_seed(0)
    model = Linear(1, 8, 10)
    layer = model.forward
    model.forward = lambda images: layer(ScaledGradient.apply(images, factor))  # type: ignore[method-assign]
    return model


class Boxed(Linear):
    """Stores a number where no fingerprint finds it."""

    def __init__(self, number: float) -> None:
        super().__init__(1, 8, 10)
        self.box = type("Box", (), {})()
        self.box.number = number

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.box.number


def boxed(number: float) -> nn.Module:
    torch.manual_seed(0)
    return Boxed(number)


@quantizing
@pytest.mark.parametrize(
    ("make", "first", "second", "message"),
    [
        pytest.param(quantized, 0, 1, r"model\.fingerprint is", id="packed weights"),
        pytest.param(closed_over, 0.0, 0.3, "model gives logits that differ by up to", id="closure"),
        pytest.param(boxed, 1.0, 1.1, "model gives logits that differ by up to", id="object"),
        pytest.param(with_gradient, 1.0, 0.0, "model gives gradient that differ by up to", id="gradient"),
    ],
)
def test_a_model_that_behaves_otherwise_is_refused(
    tmp_path: Path, make: Callable[[float], nn.Module], first: float, second: float, message: str
) -> None:
    run_evaluation(clean(make(first)), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=OTHER_MODEL + message):
        run_evaluation(clean(make(second)), tmp_path)
    assert contents(tmp_path) == before
    run_evaluation(clean(make(first)), tmp_path)


@quantizing
def test_packed_weights_are_part_of_the_state() -> None:
    assert state_fingerprint(quantized(0)) == state_fingerprint(quantized(0)) != state_fingerprint(quantized(1))


def test_a_source_that_behaves_otherwise_is_refused(tmp_path: Path) -> None:
    def evaluation(constant: float) -> Evaluation:
        source = closed_over(constant).eval()
        attack = Attack("transferred", source, PGDSettings(0.1, 0.1, 1, realizations=1), transfer="other")
        return replace(clean(boxed(1.0)), attacks=[attack])

    run_evaluation(evaluation(0.0), tmp_path)
    with pytest.raises(ValueError, match=OTHER_MODEL + "the source of transferred gives logits"):
        run_evaluation(evaluation(0.3), tmp_path)
    run_evaluation(evaluation(0.0), tmp_path)


CLASS = """
from torch import nn


class Mine(nn.Linear):
    {comment}
    def forward(self, images):
        return super().forward(images.flatten(1)) * {factor}
"""


def write_model(folder: Path, monkeypatch: pytest.MonkeyPatch, comment: str, factor: str) -> nn.Module:
    monkeypatch.syspath_prepend(folder)
    (folder / "writtenmodel.py").write_text(CLASS.format(comment=comment, factor=factor))
    monkeypatch.delitem(sys.modules, "writtenmodel", raising=False)
    linecache.clearcache()
    importlib.invalidate_caches()
    torch.manual_seed(0)
    model: nn.Module = importlib.import_module("writtenmodel").Mine(64, 10)
    return model


def test_a_comment_refuses_nothing_and_other_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, modules = tmp_path / "evaluation", tmp_path / "modules"
    modules.mkdir()
    first = run_evaluation(clean(write_model(modules, monkeypatch, "# one", "2")), folder)
    before = contents(folder)
    again = run_evaluation(clean(write_model(modules, monkeypatch, "# another, and longer", "2.0")), folder)
    assert (again.records, contents(folder)) == (first.records, before)
    with pytest.raises(ValueError, match=OTHER_MODEL + "model gives logits"):
        run_evaluation(clean(write_model(modules, monkeypatch, "# one", "30")), folder)


class Restless(Linear):
    """Draws from the operating system, so that no seed fixes the draws."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + float(np.random.default_rng().normal())


def test_a_model_whose_answers_do_not_repeat_goes_by_its_fingerprint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Restless(1, 8, 10)
    run_evaluation(clean(model), tmp_path)
    assert load_json(tmp_path / "manifest.json")["behavior"]["model"] == {"fingerprint": fingerprint(model)}
    run_evaluation(clean(model), tmp_path)


def test_rounding_refuses_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run_evaluation(clean(closed_over(0.0)), tmp_path)
    run_evaluation(clean(closed_over(1e-7)), tmp_path)


def test_a_model_that_changes_its_images_is_evaluated(tmp_path: Path) -> None:
    class InPlace(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.sub_(0.5))

    assert run_evaluation(clean(InPlace(1, 8, 10)), tmp_path).records


def write_earlier_manifest(folder: Path, evaluation: Evaluation, sources: dict[str, nn.Module]) -> None:
    """Rewrites the manifest in the form of versions that stored no answers."""
    manifest = load_json(folder / "manifest.json")
    del manifest["behavior"]
    manifest["identity"]["model"]["fingerprint"] = fingerprint(evaluation.model)
    for name, source in sources.items():
        manifest["identity"]["attacks"][name]["source"]["fingerprint"] = fingerprint(source)
    save_json(folder / "manifest.json", manifest)


def test_folders_of_earlier_versions_go_on_by_their_fingerprints(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    first = run_evaluation(evaluation, tmp_path)
    sources = {attack.name: attack.source for attack in evaluation.attacks if isinstance(attack, Attack)}
    write_earlier_manifest(tmp_path, evaluation, sources)
    before = contents(tmp_path)
    assert run_evaluation(small_evaluation(), tmp_path).records == first.records
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match=OTHER_MODEL + r"model\.fingerprint"):
        run_evaluation(replace(evaluation, model=small_defense()), tmp_path)


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_models_that_are_described_have_one_fingerprint(kind: str) -> None:
    model = small_model(kind)
    assert state_fingerprint(model) == fingerprint(model)
