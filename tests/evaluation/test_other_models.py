"""Models that cannot be switched, that take batches of one size, or that compute in another precision."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from models import Linear, random_images
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings, apgd, pgd, square
from neuroae.attacks.checks import check_mode
from neuroae.cli import app
from neuroae.evaluation import Evaluation, Scoring, attacks_from, load_evaluation, run_evaluation
from neuroae.evaluation.checks import BATCHES, INPUT_RANGE, load_checks
from neuroae.evaluation.models import for_any_batch, is_random
from neuroae.models.fingerprints import state_fingerprint
from neuroae.nn.variants import FixedBatch
from neuroae.utils.modules import takes_seeds
from small_evaluation import random_data

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore:.*is deprecated.*")

ATTACKS = {
    "pgd": (pgd, PGDSettings(epsilon=0.1, step_size=0.05, steps=3, restarts=2, realizations=2)),
    "apgd": (apgd, APGDSettings(epsilon=0.1, steps=3, realizations=2)),
    "square": (square, SquareSettings(epsilon=0.1, queries=3, draws=2)),
}


def plain(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with torch.no_grad():
        layers[1].running_mean += 0.1
    return layers.eval()


def exported(batch: int | None = None, model: nn.Module | None = None) -> nn.Module:
    """Returns a model exported for a fixed batch size, or for any."""
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    images = torch.rand(batch or 2, 1, 8, 8)
    module: nn.Module = torch.export.export(model or plain(), (images,), dynamic_shapes=shapes).module()
    return module


def frozen() -> nn.Module:
    module: nn.Module = torch.jit.freeze(torch.jit.script(plain()))
    return module


def attacked(name: str, model: nn.Module) -> Tensor:
    torch.manual_seed(0)
    images, labels, ids = random_images()
    method, settings = ATTACKS[name]
    return method(model, images, labels, settings, seed=3, image_ids=ids).images  # type: ignore[operator]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("make", [exported, frozen], ids=["exported", "frozen"])
def test_models_without_a_switch_are_attacked_as_the_model_that_they_were_made_of(
    name: str, make: Callable[[], nn.Module]
) -> None:
    torch.testing.assert_close(attacked(name, make()), attacked(name, plain()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [exported, frozen], ids=["exported", "frozen"])
def test_models_without_a_switch_are_evaluated_and_go_on(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    def evaluation(model: nn.Module) -> Evaluation:
        attacks = attacks_from(model, PGDSettings(0.1, 0.05, 1, realizations=1), random=False)
        return Evaluation(model, random_data(6), attacks, Scoring(draws=1), 3)

    assert not takes_seeds(make())
    assert state_fingerprint(make()) == state_fingerprint(make())
    first = run_evaluation(evaluation(make()), tmp_path)
    assert run_evaluation(evaluation(make()), tmp_path).records == first.records


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.InstanceNorm2d(1, track_running_stats=True)])
def test_an_exported_model_that_learns_is_refused(layer: nn.Module) -> None:
    layers = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="model was exported in training mode, expected evaluation mode; export it"):
        check_mode("model", exported(2, layers.train()))
    check_mode("model", exported(2, layers.eval()))


def test_an_exported_normalization_by_the_batch_is_no_training() -> None:
    check_mode("model", exported(2, nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()).eval()))


@pytest.mark.parametrize("size", [1, 4, 8])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_fixed_batch_is_attacked_as_any_other(size: int, name: str) -> None:
    results = attacked(name, FixedBatch(exported(size), size))
    torch.testing.assert_close(results, attacked(name, plain()), atol=1e-5, rtol=0)


class Seeded(Linear):
    def forward(self, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:  # type: ignore[override]
        assert len(images) == len(image_ids) == 4
        return super().forward(images) + (image_ids[:, None] * seed) % 7


def test_image_ids_go_with_their_images() -> None:
    model = FixedBatch(Seeded(1, 8, 10), 4)
    assert takes_seeds(model)
    images, _, ids = random_images(6)
    expected = model.model.layer(images.flatten(1)) + (ids[:, None] * 5) % 7
    torch.testing.assert_close(model(images, seed=5, image_ids=ids), expected)


def test_only_models_that_refuse_other_batches_are_put_behind_a_fixed_one() -> None:
    model = plain()
    assert for_any_batch("mine", model, random_data(5), 16) is model
    fixed = for_any_batch("mine", exported(16), random_data(5), 16)
    assert isinstance(fixed, FixedBatch)
    assert not is_random(fixed, random_data(20))
    with pytest.raises(ValueError, match=r"mine takes neither any number .* 4 \(Guard failed.*needs that as --block"):
        for_any_batch("mine", exported(16), random_data(5), 4)


MODULE = """
import torch
from torch import nn


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = layers()

    def forward(self, images):
        return self.layers(images.reshape(1, 1, 8, 8))


def one():
    return One().eval()


def of_three():
    return torch.export.export(layers(), (torch.rand(3, 1, 8, 8),)).module()


def frozen():
    return torch.jit.freeze(torch.jit.trace(layers(), torch.rand(3, 1, 8, 8)))


def half():
    return layers().half()


def double():
    return layers().double()
"""
QUICK = ["--dataset", "digits", "--limit", "4", "--steps", "2"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes a module with an unused name into the current folder."""
    name = f"others_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(("function", "block"), [("one", 1), ("of_three", 3), ("frozen", 3)])
@pytest.mark.usefixtures("probing")
def test_the_command_attacks_them(mine: str, function: str, block: int) -> None:
    words = ["attack", f"{mine}:{function}", *QUICK, "--block", str(block), "--output", "out"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert set(load_evaluation("out").records) == {"clean", "PGD"}
    verdicts = {check.name: check.verdict for check in load_checks(Path("out/sanity.json"))}
    assert verdicts[BATCHES] == "pass"
    assert INPUT_RANGE in verdicts


@pytest.mark.parametrize("kind", ["half", "double"])
def test_the_command_says_what_to_do_with_another_precision(mine: str, kind: str) -> None:
    words = ["attack", f"{mine}:{kind}", *QUICK, "--output", "out"]
    dtype = {"half": "float16", "double": "float64"}[kind]
    message = rf"model is in torch\.{dtype} and does not cast images, which are in torch\.float32: call model\.float"
    with pytest.raises(TypeError, match=message):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.half, torch.double], ids=str)
def test_attacks_say_what_to_do_with_another_precision(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="does not cast images"):
        attacked(name, plain().to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.double], ids=str)
def test_a_model_that_casts_is_attacked(dtype: torch.dtype) -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = plain().to(dtype)

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images.to(dtype)).float()

    assert not torch.equal(attacked("pgd", Casting().eval()), random_images()[0])


def test_an_error_of_the_models_own_stays_as_it_is() -> None:
    class Failing(Linear):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        attacked("pgd", Failing(1, 8, 10).eval().double())
