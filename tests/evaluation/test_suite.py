"""The suite as an evaluation: the verdict, from memory and from a folder, resumed, and of anything that answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import neuroae
from neuroae.attacks.stages import EFFORTS
from neuroae.data import ImageSet
from neuroae.evaluation import Verdict, load_evaluation
from neuroae.evaluation.suite import AnswersOnly, suite_attack
from neuroae.evaluation.verdict import shown_epsilon
from neuroae.reports import write_report

EPSILON = 0.1


class Rounded(nn.Module):
    """A network behind rounding, which leaves no gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5))

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images * 15).round() / 15)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Rounded().eval()


@pytest.fixture(scope="module")
def batch(model: nn.Module) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    images = torch.rand(10, 1, 8, 8)
    labels = model(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 5  # two are wrong when clean
    return images, labels


def judged(model: object, batch: tuple[Tensor, Tensor], **options: object) -> Verdict:
    return neuroae.evaluate(model, *batch, **{"epsilon": EPSILON, "suite": "quick", "block": 4} | options)


def test_a_verdict_counts_what_the_stages_took(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    verdict = judged(model, batch)
    assert verdict.clean.value == 0.8
    assert verdict.accuracy.value < 0.2
    assert verdict.decisive == "straight-through, margin"
    assert sum(stage.fooled for stage in verdict.stages) == 8 - verdict.stages[-1].left
    assert verdict.stages[0].skipped
    text = str(verdict)
    assert text.startswith(f"model keeps {verdict.accuracy.value:.1%} (95% interval ")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for stage in verdict.stages:
        assert any(line.startswith(f"| {stage.name} ") for line in rows) == bool(stage.images)
        assert stage.images or any(stage.name in line and stage.skipped in line for line in text.splitlines())
    assert max(map(len, rows)) <= 120
    assert "| straight-through, margin" in text
    assert "clean it has 80.0%" in text


def test_a_folder_gives_the_same_and_goes_on(model: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    in_memory, first = judged(model, batch), judged(model, batch, folder=tmp_path)
    for part in (tmp_path / "records").glob("*.jsonl"):
        part.unlink()
    (tmp_path / "records.jsonl").unlink()
    again = judged(model, batch, folder=tmp_path)
    assert str(in_memory) == str(first) == str(again)
    assert str(Verdict.of(load_evaluation(tmp_path))) == str(first)
    assert first.losses().keys() == in_memory.losses().keys()


def test_the_report_begins_with_the_verdict(
    model: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = judged(model, batch, folder=tmp_path)
    report = write_report(tmp_path)
    assert str(report).startswith(verdict.sentence)
    page = (tmp_path / "report.html").read_text()
    assert page.index("<h2>Verdict</h2>") < page.index("<summary>")
    assert 'class="stages"' in page
    assert verdict.sentence in (tmp_path / "results.md").read_text()


def test_every_image_says_where_it_left(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    images = judged(model, batch).images_left()
    assert [image for image, _, _ in images] == list(range(10))
    assert [stage for _, stage, _ in images[:2]] == ["wrong when clean"] * 2
    assert all(margin > 0 for _, stage, margin in images if stage != "stands")


def test_a_function_that_only_answers_is_searched(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    verdict = judged(lambda images: model(images).numpy(), batch)
    ran = [stage.name for stage in verdict.stages if stage.images]
    assert set(ran) <= {"Square", "evolution strategy"}
    assert verdict.accuracy.value < verdict.clean.value


def test_images_need_not_be_bytes(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    data = ImageSet("images", images, labels, torch.arange(10), tuple("abcde"))
    assert torch.equal(data.pixels(), images)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"suite": "full"}, ValueError, "suite is 'full', expected one of standard, quick"),
        ({"norm": "l1"}, ValueError, "norm is 'l1', expected one of linf, l2"),
        ({"epsilon": 8}, ValueError, "epsilon is 8, expected in"),
    ],
    ids=["suite", "norm", "epsilon"],
)
def test_what_does_not_fit_is_refused(
    model: nn.Module, batch: tuple[Tensor, Tensor], options: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        judged(model, batch, **options)


def test_images_of_0_to_255_are_refused(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="divide by 255"):
        judged(model, (batch[0] * 255, batch[1]))


def test_labels_are_asked_for(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(TypeError, match="labels is None"):
        neuroae.evaluate(model, batch[0])


def test_a_folder_keeps_its_probe(model: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """A second probe might differ in its last digits, as on another number of threads."""
    verdict = judged(model, batch, folder=tmp_path)
    data = ImageSet("images", *batch, torch.arange(10), tuple("abcde"))
    again = suite_attack(model, data, epsilon=EPSILON, suite="quick", folder=tmp_path, seed=5)
    assert again.probe == verdict.probe


def test_a_function_is_a_module_without_a_gradient() -> None:
    module = AnswersOnly(lambda images: images.flatten(1).numpy())
    assert not module(torch.rand(2, 1, 2, 2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("epsilon", "text"), [(8 / 255, "8/255"), (0.1, "0.1"), (0.5, "0.5"), (2.0, "2")])
def test_budgets_read_as_people_write_them(epsilon: float, text: str) -> None:
    assert shown_epsilon(epsilon) == text


@pytest.mark.usefixtures("probing")
def test_the_sanity_report_goes_by_the_stages(model: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    judged(model, batch, folder=tmp_path)
    checks = {check.name: check for check in write_report(tmp_path).checks}
    gradient = checks["gradients agree with differences of the loss"]
    assert gradient.verdict == "warn"
    assert "gradients are zero" in gradient.finding
    assert "most images fell to straight-through, margin" in gradient.finding
    assert checks["gradients of independent draws agree"].measured
    assert checks["an iterative attack is no weaker than a single step"].measured
    assert "straight-through" in checks["accuracy falls with epsilon"].finding
    assert checks["a larger budget changes nothing"].finding.startswith("not measured")  # in the quick suite


def test_a_larger_budget_is_judged(
    batch: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network with a gradient, attacked so briefly that more steps fool more images."""
    monkeypatch.setattr("neuroae.evaluation.run.probe_evaluation", lambda *_: None)
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], steps=1, targets=0, queries=1, factor=20))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)).eval()
    images = batch[0]
    verdict = judged(network, (images, network(images).argmax(1)), folder=tmp_path, epsilon=0.02)
    (check,) = (each for each in write_report(tmp_path).checks if each.name == "a larger budget changes nothing")
    stood, fooled = check.numbers["stood"], check.numbers["taken"]
    assert verdict.larger_budgets.startswith(f"Of {stood} images that stood in the end, more steps took ")
    assert check.verdict == ("fail" if fooled else "pass")
    assert fooled == sum(stage.fooled for stage in verdict.stages if stage.name.startswith("larger budget"))
