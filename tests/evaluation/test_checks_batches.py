"""Checks of whether answers depend on the batch, and of layers that still train."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacked_models import Noisy
from models import Linear, small_defense
from neuroae.attacks import PGDSettings, pgd
from neuroae.attacks.checks import check_mode
from neuroae.data import ImageSet
from neuroae.evaluation import Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.evaluation.checks import BATCHES, Check, batch_independence
from neuroae.evaluation.models import is_random
from neuroae.evaluation.scoring import Block
from neuroae.reports import Report, write_report
from neuroae.reports.report import BATCH_DEPENDENT
from small_evaluation import random_data

SCORING = Scoring(draws=2, seed=4)


def of_the_batch() -> nn.Module:
    """Batch normalization that uses the statistics of the batch in evaluation mode, too."""
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Conv2d(1, 4, 3), Linear(4, 6, 10)).eval()


def check(model: nn.Module, count: int = 16) -> Check:
    return batch_independence(model.eval(), Block.of(random_data(count), torch.device("cpu")), SCORING)


class Ranked(nn.Module):
    """Draws noise, and answers by an image's place in the batch."""

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        self.linear, self.coupled = Linear(1, 8, 10), coupled

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images + 0.2 * torch.randn_like(images))
        return logits + 3 * torch.arange(10) * len(images) / 16 if self.coupled else logits


class Seeded(Ranked):
    def forward(self, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:  # type: ignore[override]
        generators = [torch.Generator().manual_seed(seed + int(image)) for image in image_ids]
        noise = torch.stack([torch.randn(images.shape[1:], generator=each) for each in generators])
        logits: Tensor = self.linear(images + noise)
        return logits - logits.mean(0) if self.coupled else logits


class OneAtATime(Linear):
    def forward(self, images: Tensor) -> Tensor:
        if len(images) != 1:
            raise RuntimeError("expected one image")
        return super().forward(images)


class OfSixteen(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        if len(images) != 16:
            raise RuntimeError("expected 16 images")
        return self.model(images)


class NumpyNoise(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + float(np.random.default_rng().normal())


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        pytest.param(of_the_batch, "fail", id="batch statistics"),
        pytest.param(lambda: OfSixteen(of_the_batch()), "fail", id="batch statistics in a fixed batch"),
        pytest.param(lambda: Ranked(True), "fail", id="draws and looks at the batch"),
        pytest.param(lambda: Seeded(True), "fail", id="draws by image id and looks at the batch"),
        pytest.param(lambda: Linear(1, 8, 10), "pass", id="classifier"),
        pytest.param(lambda: OfSixteen(Linear(1, 8, 10)), "pass", id="fixed batch"),
        pytest.param(lambda: nn.Sequential(nn.InstanceNorm2d(1), Linear(1, 8, 10)), "pass", id="instance statistics"),
        pytest.param(small_defense, "pass", id="defense"),
        pytest.param(lambda: Ranked(False), "pass", id="draws"),
        pytest.param(lambda: Seeded(False), "pass", id="draws by image id"),
        pytest.param(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10).bfloat16(), nn.Identity()), "warn", id="refuses"
        ),
    ],
)
def test_answers_that_depend_on_the_batch_fail(make: Callable[[], nn.Module], verdict: str) -> None:
    torch.manual_seed(0)
    finding = check(make())
    assert finding.name == BATCHES
    assert finding.verdict == verdict, finding
    assert finding.measured == (verdict != "warn")


def test_a_defense_whose_classifier_draws_is_compared_by_distribution() -> None:
    torch.manual_seed(0)
    model = small_defense()
    model.classifier = Noisy()
    finding = check(model)
    assert finding.verdict == "pass"
    assert finding.numbers["p"] > 0.01


@pytest.mark.parametrize("make", [OneAtATime, NumpyNoise], ids=["one at a time", "not repeatable"])
def test_what_cannot_be_compared_is_not_measured(make: type[Linear]) -> None:
    finding = check(make(1, 8, 10))
    assert (finding.verdict, finding.measured) == ("warn", False)


def test_one_image_has_no_neighbours() -> None:
    assert not check(Linear(1, 8, 10), 1).measured


def test_the_check_leaves_generators_as_they_were() -> None:
    state = torch.random.get_rng_state()
    model = Ranked(False)
    torch.random.set_rng_state(state)
    check(model)
    assert torch.equal(torch.random.get_rng_state(), state)


def evaluated(model: nn.Module, folder: Path, data: ImageSet, block: int = 8) -> Report:
    attacks = attacks_from(model, PGDSettings(0.1, 0.05, steps=1, realizations=1), random=False)
    evaluation = Evaluation(model, data, attacks, Scoring(draws=1), block)
    run_evaluation(evaluation, folder)
    return write_report(folder)


def photos_of_digits() -> ImageSet:
    images = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet("some", images, torch.arange(12) % 10, torch.arange(12), tuple("abcdefghij"))


def in_colour() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), Linear(3, 8, 10)).eval()


@pytest.mark.usefixtures("probing")
def test_a_report_refuses_to_call_such_an_accuracy_robustness(tmp_path: Path) -> None:
    report = evaluated(in_colour(), tmp_path, photos_of_digits())
    assert str(report).startswith(BATCH_DEPENDENT)
    assert f"**{BATCH_DEPENDENT}**" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert BATCH_DEPENDENT in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("probing")
def test_of_blocks_of_one_image_the_report_says_nothing(tmp_path: Path) -> None:
    report = evaluated(in_colour(), tmp_path, photos_of_digits(), block=1)
    assert BATCH_DEPENDENT not in str(report)
    assert {one.name: one.verdict for one in report.checks}[BATCHES] == "pass"


class Hiding(nn.Module):
    """Stores a layer where ``eval()`` does not find it."""

    def __init__(self, hide: Callable[[nn.Module], object], layer: nn.Module) -> None:
        super().__init__()
        self.linear, self.hidden = Linear(1, 8, 10), hide(layer)
        self.run = lambda images: self.linear(layer(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images)


class Box:
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


HIDDEN: dict[str, Callable[[nn.Module], object]] = {
    "list": lambda layer: [layer],
    "dictionary in a tuple": lambda layer: ({"a": {layer}},),
    "closure": lambda layer: lambda images: layer(images),
    "partial": lambda layer: partial(layer),
    "method": lambda layer: layer.forward,
}


@pytest.mark.parametrize("where", HIDDEN)
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(1), nn.InstanceNorm2d(1, track_running_stats=True)], ids=["batch", "instance"]
)
def test_a_normalization_that_trains_is_refused_wherever_it_is(where: str, layer: nn.Module) -> None:
    model = Hiding(HIDDEN[where], layer).eval()
    with pytest.raises(ValueError, match=r"model\..* is in training mode, expected evaluation mode.*not reach"):
        check_mode("model", model)
    layer.eval()
    check_mode("model", model)
    layer.train()


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.InstanceNorm2d(1)], ids=["dropout", "instance norm"])
def test_what_draws_or_keeps_nothing_may_stay_in_training_mode(layer: nn.Module) -> None:
    check_mode("model", Hiding(HIDDEN["list"], layer).eval())


def test_a_normalization_in_an_object_is_refused_when_it_runs() -> None:
    boxes = [Box(nn.BatchNorm2d(1))]

    class Calls(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(boxes[0].layer(images))

    with pytest.raises(ValueError, match="model runs a BatchNorm2d in training mode"):
        is_random(Calls(1, 8, 10).eval(), random_data(8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*")
def test_a_scripted_normalization_that_trains_is_refused() -> None:
    model = torch.jit.script(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).eval())
    next(model.children()).train()
    images, labels = torch.rand(2, 1, 8, 8), torch.arange(2)
    with pytest.raises(ValueError, match=r"model\.0 is in training mode"):
        pgd(model, images, labels, PGDSettings(0.1, 0.1, 1, realizations=1), seed=0, image_ids=torch.arange(2))
