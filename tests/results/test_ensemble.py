"""The curve over ensemble sizes: it has the answers of evaluations, and is written to files."""

from pathlib import Path

import pytest
import torch

from models import small_defense
from neuroae.data import ImageSet
from neuroae.evaluation import Accuracy, Record
from neuroae.evaluation.statistics import draw_accuracy
from neuroae.utils.files import load_json
from results.ensemble import Predictions, curve, ensemble_predictions, markdown, picture
from results.runs import score_clean
from results_data import cifar10_folder, run, small_cifar10_defense

LABELS = torch.tensor([0, 1, 2, 0, 1])
DRAWS = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 2, 1, 2], [0, 1, 2, 0, 0]])
VOTES = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 2, 1, 2], [0, 1, 2, 0, 0]])
PREDICTIONS = Predictions(DRAWS, VOTES)


@pytest.mark.parametrize("block", [16, 64])
def test_every_row_is_what_an_evaluation_answers(block: int) -> None:
    model = small_defense(dropout_p=0.8)
    model.classifier.layer.weight.data *= 40  # probabilities near 0 and 1, whose mean is not that of the logits
    images = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet("some", images, torch.arange(60) % 10, torch.arange(60) * 7 + 3, tuple("abcdefghij"))
    predictions = ensemble_predictions(model, data.pixels(), data.ids, largest=6, seed=5, block=block)
    assert predictions.votes.shape == predictions.draws.shape == (6, 60)
    for ensemble, row in enumerate(predictions.votes, 1):
        records = score_clean(model, data, ensemble, seed=5, title="some", block=block).records
        assert row.tolist() == [record.vote for record in records]
    assert predictions.draws.T.tolist() == [list(record.draws) for record in records]
    assert not torch.equal(predictions.votes[0], predictions.votes[5])


def test_points_count_verdicts_and_changes() -> None:
    points = curve(PREDICTIONS, LABELS)
    assert [point.ensemble for point in points] == [1, 2, 3]
    assert [point.accuracy for point in points] == pytest.approx([8 / 15, 0.4, 0.8])
    assert (points[2].low, points[2].high) == Accuracy(4, 5).interval()


def test_one_draw_is_the_mean_over_draws_as_reports_have_it() -> None:
    """Images are right in 3, 2, 2, 1 and 0 of 3 draws; one that a vote gains or loses counts by its other draws."""
    records = [
        Record("some", image, int(label), 0, tuple(DRAWS[:, image].tolist()), 0.0, 0.0, 0.0, 0, 0, 0, 0)
        for image, label in enumerate(LABELS)
    ]
    expected = draw_accuracy(records)
    one, two, three = curve(PREDICTIONS, LABELS)
    assert (one.accuracy, one.low, one.high) == (expected.value, expected.low, expected.high)
    assert (one.gained, one.lost) == (0, 0)
    assert (two.gained, two.lost) == pytest.approx((1 / 3, 1))
    assert (three.gained, three.lost) == pytest.approx((4 / 3, 0))
    assert three.gained - three.lost == pytest.approx(5 * (three.accuracy - one.accuracy))


def test_table_has_a_line_for_each_size() -> None:
    attacked = Predictions(DRAWS[:1], VOTES[:1])
    lines = markdown({"clean": curve(PREDICTIONS, LABELS), "attacked": curve(attacked, LABELS)}).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[4] == ["clean", "3", "80.0%", "28.4% to 99.5%", "5", "1.3", "0.0"]
    assert rows[2][-2:] == ["", ""]
    assert [row[:2] for row in rows[2:]] == [["clean", "1"], ["clean", "2"], ["clean", "3"], ["attacked", "1"]]


def test_picture_has_a_line_and_a_band_for_each_curve() -> None:
    attacked = Predictions(DRAWS, VOTES.flip(0))
    (axis,) = picture({"clean": curve(PREDICTIONS, LABELS), "attacked": curve(attacked, LABELS)}).axes
    clean, attacked = axis.lines
    assert clean.get_xdata().tolist() == [1, 2, 3]
    assert clean.get_ydata().tolist() == pytest.approx([800 / 15, 40, 80])
    assert attacked.get_ydata().tolist() == pytest.approx([800 / 15, 40, 40])
    band, _ = axis.collections
    heights = band.get_paths()[0].vertices[:, 1] / 100
    assert heights.min() == pytest.approx(Accuracy(2, 5).interval()[0])  # of E = 2
    assert heights.max() == pytest.approx(Accuracy(4, 5).interval()[1])


def test_command_writes_numbers_table_and_picture(tmp_path: Path) -> None:
    small_cifar10_defense().save_pretrained(tmp_path / "model")
    data = cifar10_folder(tmp_path / "data")
    result = run("ensemble", "--model", tmp_path / "model", "--data-dir", data, "--output", tmp_path)
    folder = tmp_path / "ensemble"
    numbers = load_json(folder / "ensemble.json")
    assert numbers["model"] == "model"
    assert numbers["data"]["name"] == "cifar10 test"
    assert [point["ensemble"] for point in numbers["curves"]["clean"]] == list(range(1, 11))
    assert {point["images"] for point in numbers["curves"]["clean"]} == {6}
    assert numbers["versions"]["torch"] == torch.__version__
    page = (folder / "README.md").read_text()
    assert page.startswith("# Figure 6")
    assert result.stdout.strip() in page
    assert f"Model model, fingerprint {numbers['fingerprint'][:16]}" in page
    assert f"torch {torch.__version__}" in page
    assert (folder / "ensemble.png").stat().st_size > 5000
