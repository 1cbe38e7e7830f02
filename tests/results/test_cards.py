"""Cards of shipped models with what an attack leaves: the rows of an evaluation, the clean ones kept."""

from pathlib import Path

from neuroae.utils.files import load_json
from results.cards import attacked_scores, rewrite
from results_data import small_cifar10_defense

CLEAN = {
    "data": "cifar10 test",
    "attack": "clean",
    "ensemble": 10,
    "accuracy": 0.8,
    "low": 0.7,
    "high": 0.9,
    "images": 50,
}
ROW = {"attack": "selection", "vote": 0.148, "vote_low": 0.126, "vote_high": 0.172, "images": 1000}


def test_scores_are_those_of_the_attacks_that_cards_name() -> None:
    (score,) = attacked_scores({"attacks": [ROW, ROW | {"attack": "Square"}]}, 10)
    assert score["attack"] == "selection, epsilon 8/255"
    assert (score["accuracy"], score["low"], score["high"], score["images"]) == (0.148, 0.126, 0.172, 1000)


def test_a_card_keeps_its_clean_rows_and_replaces_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    small_cifar10_defense().save_pretrained(folder, {"scores": [CLEAN]})
    for accuracy in (0.3, 0.148):
        rewrite(folder, attacked_scores({"attacks": [ROW | {"vote": accuracy}]}, 10))
    notes = load_json(folder / "config.json")["notes"]
    assert [score["attack"] for score in notes["scores"]] == ["clean"]
    assert [score["attack"] for score in notes["attacked"]] == ["selection, epsilon 8/255"]
    assert notes["classes"][3] == "cat"
    card = (folder / "README.md").read_text()
    assert "14.80%" in card
    assert "80.00%" in card
    assert "30.00%" not in card
