"""Both precisions on one schedule, in miniature."""

from pathlib import Path

import pytest
import torch

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Record
from neuroae.utils.files import load_json
from results import schedule
from results_data import run, small_cifar10_defense


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the command's output for 16 images, of which 4 are held out."""
    images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet("some", images, torch.arange(16) % 10, torch.arange(16), tuple("abcdefghij"))
    weights = small_cifar10_defense().state_dict()

    def same_model(*_: object) -> torch.nn.Module:
        model = small_cifar10_defense()
        model.load_state_dict(weights)
        return model

    monkeypatch.setattr(schedule, "load_dataset", lambda *_: data)
    monkeypatch.setattr(schedule, "load_dictionary", lambda _: torch.ones(1))
    monkeypatch.setattr(schedule, "make_defense", same_model)
    monkeypatch.setattr(schedule, "HELD_OUT", 4)
    result = run("schedule", "--data-dir", "x", "--epochs", 1, "--work", tmp_path / "work", "--output", tmp_path)
    assert result.stdout.strip() in (tmp_path / "schedule" / "README.md").read_text()
    return tmp_path / "schedule"


def test_both_precisions_learn_from_the_same_images_and_are_scored_on_others(results: Path) -> None:
    numbers = load_json(results / "results.json")
    assert (numbers["images"], numbers["held_out"]) == (12, 4)
    exact, rounded = (numbers["rows"][name]["epochs"] for name in ("float32", "bfloat16"))
    assert len(exact) == len(rounded) == 1
    assert exact[0]["loss"] != rounded[0]["loss"]
    assert exact[0]["loss"] == pytest.approx(rounded[0]["loss"], rel=0.05)
    assert {path.name for path in (results.parent / "work" / "schedule").iterdir()} == {"float32", "bfloat16"}


def test_pairs_count_images_that_one_alone_answers_rightly() -> None:
    def records(*votes: int) -> list[Record]:
        return [Record(CLEAN, image, 0, vote, (vote,), 0.0, 0.0, 0.0, 0, 0, 0, 0) for image, vote in enumerate(votes)]

    pairs = schedule.compare({"float32": records(0, 0, 0, 1, 1), "bfloat16": records(0, 1, 1, 0, 1)})
    assert (pairs.images, pairs.first, pairs.second) == (5, 2, 1)
