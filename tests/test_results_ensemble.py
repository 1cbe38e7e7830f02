"""The curve over ensemble sizes: the answers of ``evaluate`` in one pass, and what is written of them."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from models import small_defense
from neuroae.data import ImageSet
from neuroae.evaluation import Accuracy, evaluate
from neuroae.storage import load_json
from results.ensemble import curve, ensemble_predictions, main, markdown, picture
from results_data import cifar10_folder, small_cifar10_defense

LABELS = torch.tensor([0, 1, 2, 0, 1])
PREDICTIONS = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 2, 1, 2], [0, 1, 2, 0, 0]])


@pytest.mark.parametrize("block", [16, 64])
def test_every_row_is_what_evaluate_answers(block: int) -> None:
    model = small_defense(dropout_p=0.8)
    model.classifier.layer.weight.data *= 40  # probabilities near 0 and 1, whose mean is not that of the logits
    images = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet("some", images, torch.arange(60) % 10, torch.arange(60) * 7 + 3, tuple("abcdefghij"))
    found = ensemble_predictions(model, data.pixels(), data.ids, largest=6, seed=5, block=block)
    assert found.shape == (6, 60)
    for ensemble, row in enumerate(found, 1):
        expected = evaluate(model, data, ensemble=ensemble, seed=5, block=block).predictions
        assert torch.equal(row, expected)
    assert not torch.equal(found[0], found[5])


def test_points_count_verdicts_and_changes() -> None:
    points = curve(PREDICTIONS, LABELS)
    assert [point.ensemble for point in points] == [1, 2, 3]
    assert [point.correct for point in points] == [2, 2, 4]
    assert [(point.gained, point.lost) for point in points] == [(0, 0), (1, 1), (2, 0)]
    assert [point.accuracy for point in points] == [0.4, 0.4, 0.8]
    assert (points[2].low, points[2].high) == Accuracy(4, 5).interval()


def test_table_has_a_line_for_each_size() -> None:
    lines = markdown({"clean": curve(PREDICTIONS, LABELS), "attacked": curve(PREDICTIONS[:1], LABELS)}).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[4] == ["clean", "3", "80.0%", "28.4% to 99.5%", "4 of 5", "2", "0"]
    assert [row[:2] for row in rows[2:]] == [["clean", "1"], ["clean", "2"], ["clean", "3"], ["attacked", "1"]]


def test_picture_has_a_line_and_a_band_for_each_curve() -> None:
    (axis,) = picture({"clean": curve(PREDICTIONS, LABELS), "attacked": curve(PREDICTIONS.flip(0), LABELS)}).axes
    clean, attacked = axis.lines
    assert clean.get_xdata().tolist() == [1, 2, 3]
    assert clean.get_ydata().tolist() == [40, 40, 80]
    assert attacked.get_ydata().tolist() == [80, 40, 40]
    band, _ = axis.collections
    heights = band.get_paths()[0].vertices[:, 1] / 100
    assert heights.min() == pytest.approx(Accuracy(2, 5).interval()[0])
    assert heights.max() == pytest.approx(Accuracy(4, 5).interval()[1])


def test_script_writes_numbers_table_and_picture(tmp_path: Path) -> None:
    small_cifar10_defense().save_pretrained(tmp_path / "model")
    app = typer.Typer()
    app.command()(main)
    arguments = [tmp_path / "model", "--data-dir", cifar10_folder(tmp_path / "data"), "--output", tmp_path / "found"]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = load_json(tmp_path / "found" / "ensemble.json")
    assert found["model"] == "model"
    assert found["data"]["name"] == "cifar10 test"
    assert [point["ensemble"] for point in found["curves"]["clean"]] == list(range(1, 11))
    assert {point["images"] for point in found["curves"]["clean"]} == {6}
    assert found["versions"]["torch"] == torch.__version__
    assert (tmp_path / "found" / "ensemble.md").read_text() in result.stdout
    assert (tmp_path / "found" / "ensemble.png").stat().st_size > 5000
