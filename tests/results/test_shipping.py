"""The models that ship: float16 if it is harmless, scores, and the card with accuracies under attacks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuroae import Defense, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, Record
from neuroae.evaluation.statistics import Estimate, draw_accuracy, mean_over_images, vote_accuracy
from neuroae.models import load_pretrained
from neuroae.utils.files import load_json, load_tensors
from results import shipping
from results.runs import CleanScores, score_clean
from results.shipping import RoundingCheck, attacked_scores, rewrite_card, ship_model
from results_data import cifar10_folder, run, small_cifar10_defense

NOTES = {"run": {"method": "supervised"}, "epochs": [{"stage": "defense"}], "seconds": 60.0}

CLEAN_SCORE = {
    "data": "cifar10 test",
    "attack": "clean",
    "ensemble": 10,
    "accuracy": 0.8,
    "low": 0.7,
    "high": 0.9,
    "images": 50,
}
ATTACK_ROW = {"attack": "selection", "vote": 0.148, "vote_low": 0.126, "vote_high": 0.172, "images": 1000}


@pytest.fixture
def data(tmp_path: Path) -> ImageSet:
    return load_dataset("cifar10", "test", cifar10_folder(tmp_path / "data"))


def scored(votes: Tensor, draws: Tensor) -> CleanScores:
    """Returns the records of images of class 0 with these votes, (N,), and draws, (E, N)."""
    pairs = enumerate(zip(votes.tolist(), draws.T.tolist(), strict=True))
    return CleanScores(
        [Record(CLEAN, image, 0, vote, tuple(each), 0.0, 0.0, 0.0, 0, 0, 0, 0) for image, (vote, each) in pairs], 0.0
    )


def scores(correct: int, images: int) -> CleanScores:
    votes = (torch.arange(images) >= correct).long()
    return scored(votes, votes.expand(10, -1))


@pytest.mark.parametrize(
    ("trained", "rounded", "images", "harmless"),
    [(780, 783, 1000, True), (780, 776, 1000, False), (780, 784, 1000, False), (5, 5, 6, True), (5, 6, 6, False)],
)
def test_float16_may_move_the_accuracy_by_three_tenths_of_a_point(
    trained: int, rounded: int, images: int, harmless: bool
) -> None:
    check = RoundingCheck(10, scores(trained, images), scores(rounded, images))
    assert check.harmless == harmless
    expected = {"ensemble": 10, "float32": trained / images, "float16": rounded / images}
    assert check.note() == expected | {"changed": abs(trained - rounded)}


def test_one_draw_is_the_mean_over_the_draws() -> None:
    """Ten draws make different mistakes on 100 images; their vote is always right."""
    votes = torch.zeros(100, dtype=torch.long)
    draws = torch.eye(10, dtype=torch.long).repeat(1, 10)
    trained = scored(votes, draws)
    rounded = scored(votes, draws.clone().index_fill(0, torch.tensor([3]), 1))
    check = RoundingCheck(1, trained, rounded)
    assert check.note() == pytest.approx({"ensemble": 1, "float32": 0.9, "float16": 0.81, "changed": 90})
    assert not check.harmless
    assert check.accuracy(trained) == mean_over_images(np.full(100, 0.9))
    assert RoundingCheck(10, trained, rounded).harmless


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_a_run_ships_as_float16_with_its_scores(tmp_path: Path, data: ImageSet, kind: str) -> None:
    model = small_cifar10_defense() if kind == "defense" else resnet32().eval()
    model.save_pretrained(tmp_path / "run", NOTES)
    checks = ship_model(tmp_path / "run", "some-name", data, tmp_path / "shelf")
    assert [check.ensemble for check in checks] == ([1, 10] if kind == "defense" else [1])
    shipped, notes = load_pretrained(tmp_path / "shelf" / "some-name")
    assert notes["run"] == NOTES["run"]
    for score, check in zip(notes["scores"], checks, strict=True):
        records = score_clean(shipped, data, 10 if kind == "defense" else 1, seed=0, title="shipped").records
        vote = vote_accuracy(records)
        one_vote = Estimate(vote.value, *vote.interval())
        expected = draw_accuracy(records) if (kind, check.ensemble) == ("defense", 1) else one_vote
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

    def score(model: nn.Module, *_: object) -> CleanScores:
        assert isinstance(model, Defense)
        return scores(trained if torch.equal(model.classifier.linear.weight, weight) else rounded, images)

    monkeypatch.setattr(shipping, "score_clean", score)
    ship_model(tmp_path / "run", "some", data, tmp_path / "shelf")
    shipped, notes = load_pretrained(tmp_path / "shelf" / "some")
    same = [torch.equal(shipped.state_dict()[name], tensor) for name, tensor in model.state_dict().items()]
    assert all(same) == (not half)
    assert [score["accuracy"] for score in notes["scores"]] == [(rounded if half else trained) / images] * 2
    assert [check["float16"] for check in notes["storage"]] == [rounded / images] * 2


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Cifar", "x.y", "-x"])
def test_names_that_are_not_plain_are_refused(tmp_path: Path, data: ImageSet, name: str) -> None:
    with pytest.raises(ValueError, match=f"name is '{name}', expected lower-case letters"):
        ship_model(tmp_path / "run", name, data, tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


def test_command_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resnet32().save_pretrained(tmp_path / "run", NOTES)
    monkeypatch.setattr(shipping, "SHIPPED", tmp_path / "shelf")
    result = run("ship", tmp_path / "run", "some", "--data-dir", cifar10_folder(tmp_path / "data"))
    assert "in float32" in result.stdout
    assert "its weights as float16; all that ships: 1.0 MB" in result.stdout
    assert (tmp_path / "shelf" / "some" / "README.md").exists()


def test_scores_are_those_of_the_attacks_that_cards_name() -> None:
    (score,) = attacked_scores({"attacks": [ATTACK_ROW, ATTACK_ROW | {"attack": "Square"}]}, 10)
    assert score["attack"] == "selection, epsilon 8/255"
    assert (score["accuracy"], score["low"], score["high"], score["images"]) == (0.148, 0.126, 0.172, 1000)


def test_a_card_keeps_its_clean_rows_and_replaces_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    small_cifar10_defense().save_pretrained(folder, {"scores": [CLEAN_SCORE]})
    for accuracy in (0.3, 0.148):
        rewrite_card(folder, attacked_scores({"attacks": [ATTACK_ROW | {"vote": accuracy}]}, 10))
    notes = load_json(folder / "config.json")["notes"]
    assert [score["attack"] for score in notes["scores"]] == ["clean"]
    assert [score["attack"] for score in notes["attacked"]] == ["selection, epsilon 8/255"]
    assert notes["classes"][3] == "cat"
    card = (folder / "README.md").read_text()
    assert "14.80%" in card
    assert "80.00%" in card
    assert "30.00%" not in card
