"""Both precisions on one schedule, in miniature."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Record, Results
from neuroae.utils.files import load_json
from results import schedule
from results_data import small_cifar10_defense


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the command writes of 16 images, 4 of which are held out."""
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
    app = typer.Typer()
    app.command()(schedule.main)
    given = ["--data-dir", "x", "--epochs", "1", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() in (tmp_path / "out" / "README.md").read_text()
    return tmp_path / "out"


def test_both_precisions_learn_from_the_same_images_and_are_scored_on_others(results: Path) -> None:
    found = load_json(results / "results.json")
    assert (found["images"], found["held_out"]) == (12, 4)
    exact, rounded = (found["rows"][name]["epochs"] for name in ("float32", "bfloat16"))
    assert len(exact) == len(rounded) == 1
    assert exact[0]["loss"] != rounded[0]["loss"]
    assert exact[0]["loss"] == pytest.approx(rounded[0]["loss"], rel=0.05)
    assert {path.name for path in (results.parent / "work").iterdir()} == {"float32", "bfloat16"}


def test_pairs_count_images_that_one_alone_answers_rightly() -> None:
    def outcome(*votes: int) -> Results:
        rest = (0.0, 0.0, 0.0, 0, 0, 0, 0)
        return Results(
            None, {}, {CLEAN: [Record(CLEAN, i, 0, vote, (vote,), *rest) for i, vote in enumerate(votes)]}, {}
        )

    pairs = schedule.paired({"float32": outcome(0, 0, 0, 1, 1), "bfloat16": outcome(0, 1, 1, 0, 1)})
    assert (pairs.images, pairs.first, pairs.second) == (5, 2, 1)
