"""Putting a trained model into the package: float16 where it does no harm, scores, and the card."""

from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from neuroae import Defense, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Evaluation, Record, Results, Scoring, run_evaluation
from neuroae.evaluation.statistics import Estimate, mean_over_images
from neuroae.models import load_pretrained
from neuroae.utils.files import load_tensors
from results import ship as module
from results.ship import Check, main, ship
from results_data import cifar10_folder, small_cifar10_defense

NOTES = {"run": {"method": "supervised"}, "epochs": [{"stage": "defense"}], "seconds": 60.0}


@pytest.fixture
def data(tmp_path: Path) -> ImageSet:
    return load_dataset("cifar10", "test", cifar10_folder(tmp_path / "data"))


def results(votes: Tensor, draws: Tensor) -> Results:
    """Of clean images of class 0, with (N,) votes and (10, N) draws."""
    rest = (0.0, 0.0, 0.0, 0, 0, 0, 0)
    rows = enumerate(zip(votes.tolist(), draws.T.tolist(), strict=True))
    records = [Record(CLEAN, image, 0, vote, tuple(each), *rest) for image, (vote, each) in rows]
    return Results(None, {}, {CLEAN: records}, {CLEAN: 0.0})


def outcome(correct: int, images: int) -> Results:
    votes = (torch.arange(images) >= correct).long()
    return results(votes, votes.expand(10, -1))


@pytest.mark.parametrize(
    ("trained", "rounded", "images", "harmless"),
    [(780, 783, 1000, True), (780, 776, 1000, False), (780, 784, 1000, False), (5, 5, 6, True), (5, 6, 6, False)],
)
def test_float16_may_move_the_accuracy_by_three_tenths_of_a_point(
    trained: int, rounded: int, images: int, harmless: bool
) -> None:
    check = Check(10, outcome(trained, images), outcome(rounded, images))
    assert check.harmless == harmless
    expected = {"ensemble": 10, "float32": trained / images, "float16": rounded / images}
    assert check.note() == expected | {"changed": abs(trained - rounded)}


def test_one_draw_is_the_mean_over_the_draws() -> None:
    """Ten draws of 100 images, each with other mistakes; their vote is right throughout."""
    labels = torch.zeros(100, dtype=torch.long)
    draws = torch.eye(10, dtype=torch.long).repeat(1, 10)
    trained = results(labels, draws)
    rounded = results(labels, draws.clone().index_fill(0, torch.tensor([3]), 1))
    check = Check(1, trained, rounded)
    assert check.note() == pytest.approx({"ensemble": 1, "float32": 0.9, "float16": 0.81, "changed": 90})
    assert not check.harmless
    assert check.accuracy(trained) == mean_over_images(np.full(100, 0.9))
    assert Check(10, trained, rounded).harmless


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_a_run_ships_as_float16_with_its_scores(tmp_path: Path, data: ImageSet, kind: str) -> None:
    model = small_cifar10_defense() if kind == "defense" else resnet32().eval()
    model.save_pretrained(tmp_path / "run", NOTES)
    checks = ship(tmp_path / "run", "some-name", data, tmp_path / "shelf")
    assert [check.ensemble for check in checks] == ([1, 10] if kind == "defense" else [1])
    shipped, notes = load_pretrained(tmp_path / "shelf" / "some-name")
    assert notes["run"] == NOTES["run"]
    for score, check in zip(notes["scores"], checks, strict=True):
        scored = run_evaluation(Evaluation(shipped, data, [], Scoring(10 if kind == "defense" else 1)))
        accuracy = scored.accuracy(CLEAN)
        one_vote = Estimate(accuracy.value, *accuracy.interval())
        expected = scored.draw_accuracy(CLEAN) if (kind, check.ensemble) == ("defense", 1) else one_vote
        assert Estimate(score["accuracy"], score["low"], score["high"]) == expected
        assert score["fingerprint"] == data.fingerprint()
    tensors, _ = load_tensors(tmp_path / "shelf" / "some-name" / "model.safetensors")
    half = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert any(name.endswith("linear.weight") for name in half)
    card = (tmp_path / "shelf" / "some-name" / "README.md").read_text()
    assert 'license: "apache-2.0"' in card
    assert "# some-name" in card
    assert "## Rounding to float16" in card


@pytest.mark.parametrize(("trained", "rounded", "images", "half"), [(780, 782, 1000, True), (5, 4, 6, False)])
def test_the_card_has_the_scores_of_the_weights_that_ship(
    tmp_path: Path,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    trained: int,
    rounded: int,
    images: int,
    half: bool,
) -> None:
    model = small_cifar10_defense()
    model.save_pretrained(tmp_path / "run", NOTES)
    weight = model.classifier.linear.weight

    def scored(evaluation: Evaluation) -> Results:
        model = evaluation.model
        assert isinstance(model, Defense)
        return outcome(trained if torch.equal(model.classifier.linear.weight, weight) else rounded, images)

    monkeypatch.setattr(module, "run_evaluation", scored)
    ship(tmp_path / "run", "some", data, tmp_path / "shelf")
    shipped, notes = load_pretrained(tmp_path / "shelf" / "some")
    same = [torch.equal(shipped.state_dict()[name], tensor) for name, tensor in model.state_dict().items()]
    assert all(same) == (not half)
    assert [score["accuracy"] for score in notes["scores"]] == [(rounded if half else trained) / images] * 2
    assert [check["float16"] for check in notes["storage"]] == [rounded / images] * 2


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Cifar", "x.y", "-x"])
def test_names_that_are_not_plain_are_refused(tmp_path: Path, data: ImageSet, name: str) -> None:
    with pytest.raises(ValueError, match=f"name is '{name}', expected lower-case letters"):
        ship(tmp_path / "run", name, data, tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


def test_script_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resnet32().save_pretrained(tmp_path / "run", NOTES)
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shelf")
    app = typer.Typer()
    app.command()(main)
    arguments = [tmp_path / "run", "some", "--data-dir", cifar10_folder(tmp_path / "data")]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "in float32" in result.stdout
    assert "its weights as float16; all that ships: 1.0 MB" in result.stdout
    assert (tmp_path / "shelf" / "some" / "README.md").exists()
