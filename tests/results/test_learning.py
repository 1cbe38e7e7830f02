"""The curves of a model's trainings, from its config.json."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from neuroae.training import Epoch
from results.learning import cycles, gain, rows
from results_data import run, small_cifar10_defense


def training(rate: float, *stages: list[Epoch]) -> dict[str, Any]:
    epochs = [asdict(epoch) for stage in stages for epoch in stage]
    return {"run": {"training": {"learning_rate": rate}}, "epochs": epochs}


def stage(name: str, *accuracies: float | None) -> list[Epoch]:
    return [Epoch(name, number, 0.01, 1.0 / number, each, 100.0) for number, each in enumerate(accuracies, 1)]


def test_cycles_are_told_oldest_first_by_their_stages() -> None:
    first = training(0.05, stage("decoder", None, None), stage("classifier", 0.2, 0.3))
    trainings = cycles(training(0.025, stage("defense", 0.4, 0.5)) | {"earlier": [first]})
    assert [cycle["rate"] for cycle in trainings] == [0.05, 0.025]
    assert [list(cycle["stages"]) for cycle in trainings] == [["decoder", "classifier"], ["defense"]]
    assert rows(trainings)[0] == ("1", "decoder", "2", "0.05", "0.5", "", "", "")
    assert rows(trainings)[2] == ("2", "defense", "2", "0.025", "0.5", "50.0%", "+10.0", "")


def test_gains_are_points_of_accuracy_over_so_many_epochs() -> None:
    epochs = stage("defense", 0.3, 0.5, 0.4, 0.45, 0.5, 0.6)
    assert (gain(epochs, 1), gain(epochs, 5), gain(epochs, 6)) == ("+10.0", "+30.0", "")


def test_notes_without_trainings_are_refused() -> None:
    with pytest.raises(ValueError, match="does not say how it was trained"):
        cycles({})


def test_page_picture_and_epochs_are_written(tmp_path: Path) -> None:
    first = training(0.05, stage("defense", 0.2, 0.3))
    notes = training(0.025, stage("defense", 0.4)) | {"earlier": [first]}
    small_cifar10_defense().save_pretrained(tmp_path / "mine", notes)
    result = run("learning", "--model", tmp_path / "mine", "--output", tmp_path / "out")
    folder = tmp_path / "out" / "learning" / "mine"
    assert result.stdout.strip() in (folder / "README.md").read_text()
    assert (folder / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for number, expected in ((1, [0.2, 0.3]), (2, [0.4])):
        with (folder / f"epochs-{number}.csv").open() as file:
            assert [float(row["accuracy"]) for row in csv.DictReader(file)] == expected
