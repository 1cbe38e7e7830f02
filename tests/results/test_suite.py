"""The suite beside AutoAttack and beside single attacks: the attack, what it costs, and the pages."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet, image_set
from neuroae.evaluation import Evaluation, Scoring, Verdict, attacks_from, load_evaluation, suite_attack
from neuroae.evaluation.scoring import Block
from results.libraries import AutoAttack
from results.runs import run
from results.suite import write_autoattack, write_suite

EPSILON = 0.1


@pytest.fixture(autouse=True)
def _without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroae.evaluation.run.probe_evaluation", lambda *_: None)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def data(count: int = 10) -> ImageSet:
    images = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return image_set(images, network()(images).argmax(1))


def autoattack() -> AutoAttack:
    return AutoAttack(EPSILON, classes=4, steps=3, queries=20)


def test_autoattack_stays_in_the_ball_and_counts_its_passes() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.rows = network(), 0

        def forward(self, images: Tensor) -> Tensor:
            self.rows += len(images)
            logits: Tensor = self.network(images)
            return logits

    model, images = Counted().eval(), data()
    crafted = autoattack().craft(model, Block.of(images, torch.device("cpu")), Scoring(draws=1))
    assert (crafted.images - images.images).abs().max() <= EPSILON + 1e-6
    assert (model.network(crafted.images).argmax(1) != images.labels).any()
    counts = [float(crafted.details[kind].sum()) for kind in ("gradients", "forwards")]
    assert sum(counts) == pytest.approx(model.rows)
    assert counts[0] >= 3 * len(images)


def test_the_pages_show_what_each_left(tmp_path: Path) -> None:
    model, images, work = network(), data(), tmp_path / "work"
    suite = suite_attack(model, images, epsilon=EPSILON, suite="quick")
    evaluation = Evaluation(model, images, [suite, autoattack()], Scoring(draws=1))
    run(evaluation, work, tmp_path / "suite")
    results = load_evaluation(work)
    write_autoattack(tmp_path / "autoattack", Verdict.of(results))
    page = (tmp_path / "autoattack/README.md").read_text()
    for name in (suite.name, "AutoAttack, standard"):
        accuracy = results.accuracy(name)
        assert f"| {name} " in page
        assert f"{accuracy.correct} of 10" in page
    single = attacks_from(model, PGDSettings(epsilon=EPSILON, step_size=0.05, steps=2), random=False)
    run(Evaluation(model, images, single, Scoring(draws=1)), tmp_path / "single", tmp_path / "selection")
    verdict = Verdict.of(results)
    write_suite(tmp_path, verdict)
    page = (tmp_path / "suite/README.md").read_text()
    assert verdict.sentence in page
    assert verdict.table() in page
    assert any(stage.gradients for stage in verdict.stages)
    assert "| alone: PGD" in page
