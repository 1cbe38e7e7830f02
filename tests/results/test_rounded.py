"""Rounded images are compared with the unrounded ones, on the draws of the records."""

from pathlib import Path

import pytest

from neuroae.attacks import round_to_8_bits
from neuroae.evaluation import CLEAN, load_evaluation, run_evaluation
from neuroae.evaluation.scoring import answers
from results.rounded import score_rounded
from small_evaluation import small_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rounded") / "small"
    run_evaluation(small_evaluation(), path)
    return path


def test_clean_images_are_of_8_bits_already(folder: Path) -> None:
    evaluation, results = small_evaluation(), load_evaluation(folder)
    rounded = score_rounded(evaluation.model, evaluation.data, results, CLEAN)
    assert rounded.before == rounded.after
    assert (rounded.recovered, rounded.lost, rounded.linf) == (0, 0, 0)


def test_attacked_images_are_scored_on_the_same_draws(folder: Path) -> None:
    evaluation, results = small_evaluation(), load_evaluation(folder)
    name = list(results.records)[1]
    rounded = score_rounded(evaluation.model, evaluation.data, results, name)
    votes = []
    for number, part in enumerate(round_to_8_bits(results.images(name)).split(evaluation.block)):
        ids = evaluation.load(number).ids
        votes += answers(evaluation.model, part, ids, evaluation.scoring).vote.tolist()
    labels = evaluation.data.labels.tolist()
    records = results.records[name]
    assert rounded.after.correct == sum(vote == label for vote, label in zip(votes, labels, strict=True))
    assert rounded.before.correct == sum(record.vote == record.label for record in records)
    assert rounded.after.correct - rounded.before.correct == rounded.recovered - rounded.lost
    assert 0 < rounded.linf <= 0.1 + 1 / 510 + 1e-6
