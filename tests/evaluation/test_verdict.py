"""The verdict of several evaluations: the worst of each image, and what may not be merged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet, image_set
from neuroae.evaluation import Attack, Evaluation, Scoring, attacks_from, merge_evaluations, run_evaluation
from neuroae.evaluation.own_attack import OwnAttack

SETTINGS = PGDSettings(epsilon=0.1, step_size=0.05, steps=2, realizations=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()


def data() -> ImageSet:
    torch.manual_seed(1)
    images = torch.rand(12, 1, 8, 8)
    return image_set(images, network()(images).argmax(1))


def attacks() -> dict[str, Attack | OwnAttack]:
    (pgd,) = attacks_from(network(), SETTINGS, random=False)
    darker = OwnAttack("darker", lambda model, images, labels, epsilon: (images - epsilon).clamp(0, 1), 0.1)
    return {"pgd": pgd, "darker": darker}


def evaluated(folder: Path, *names: str, evaluation: Evaluation | None = None) -> Path:
    evaluation = evaluation or Evaluation(network(), data(), [], Scoring(draws=1))
    run_evaluation(replace(evaluation, attacks=[attacks()[name] for name in names]), folder)
    return folder


def test_the_worst_of_each_image_is_that_of_one_evaluation_with_all_attacks(tmp_path: Path) -> None:
    parts = [evaluated(tmp_path / name, name) for name in attacks()]
    (merged,) = merge_evaluations(parts)
    (together,) = merge_evaluations([evaluated(tmp_path / "all", *attacks())])
    assert merged.accuracy == together.accuracy
    assert merged.clean.value == 1
    assert sum(part.fooled for part in merged.parts) == merged.accuracy.images - merged.accuracy.correct > 0
    assert [part.fooled for part in merged.parts] == [part.fooled for part in together.parts]
    assert [part.evaluation for part in merged.parts] == ["pgd", "darker"]
    assert merged.sentence in str(merged)


def test_budgets_stay_apart(tmp_path: Path) -> None:
    wider = Evaluation(network(), data(), [], Scoring(draws=1))
    (attack,) = attacks_from(network(), replace(SETTINGS, epsilon=0.2), random=False)
    run_evaluation(replace(wider, attacks=[attack]), tmp_path / "wide")
    merged = merge_evaluations([evaluated(tmp_path / "pgd", "pgd"), tmp_path / "wide"])
    assert [verdict.budget.epsilon for verdict in merged] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Evaluation(network(), data().take(slice(6)), [], Scoring(draws=1)), "set of images"),
        (Evaluation(network(), data(), [], Scoring(draws=1, seed=1)), "set of scoring draws"),
        (Evaluation(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval(), data(), [], Scoring(draws=1)), "model"),
    ],
    ids=["images", "draws", "model"],
)
def test_what_differs_is_not_merged(tmp_path: Path, other: Evaluation, what: str) -> None:
    folders = [evaluated(tmp_path / "first", "pgd"), evaluated(tmp_path / "other", "darker", evaluation=other)]
    with pytest.raises(ValueError, match=f"has another {what} than"):
        merge_evaluations(folders)


def test_an_unfinished_or_missing_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        merge_evaluations([tmp_path / "nothing"])
    with pytest.raises(ValueError, match="folders is empty"):
        merge_evaluations([])
    with pytest.raises(ValueError, match="no attack has a budget"):
        merge_evaluations([evaluated(tmp_path / "clean")])
