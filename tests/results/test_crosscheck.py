"""The comparison with other libraries: what each is asked to do, and what is written of it."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from attacked_models import distance
from bent_model import bent_model, some_data
from models import Linear, random_images
from neuroae import resnet32
from neuroae.attacks.losses import margin as our_margin
from neuroae.evaluation import Accuracy
from neuroae.utils.files import load_json, save_tensors
from results.crosscheck import Row, compare, main
from results.kept import Kept
from results.libraries import EPSILON, comparisons, margin
from results_data import cifar10_folder

LIBRARIES = {
    f"{attack}, {library}": craft for attack, crafts in comparisons().items() for library, craft in crafts.items()
}


@pytest.mark.parametrize("craft", LIBRARIES.values(), ids=LIBRARIES)
def test_each_library_attacks_within_the_budget(craft) -> None:  # type: ignore[no-untyped-def]
    model, (images, _, ids) = Linear(1, 8, 10).eval(), random_images(60)
    labels = model(images).argmax(-1)
    found = craft(model, images, labels, ids)
    assert distance(found, images, "linf").max() <= EPSILON + 1e-6
    assert not found.requires_grad
    moved = our_margin(model(found), labels) - our_margin(model(images), labels)
    assert (moved >= 0).all()
    assert (moved > 0).any()


@pytest.mark.parametrize("attack", [name for name in comparisons() if name.startswith("PGD")])
def test_libraries_agree_on_every_image_where_signs_are_clear(attack: str) -> None:
    """A linear model of two classes has one direction, so all three end at the same corner."""
    model, (images, _, ids) = Linear(1, 8, 2).eval(), random_images()
    labels = torch.arange(6) % 2
    ours, *others = (craft(model, images, labels, ids) for craft in comparisons()[attack].values())
    assert len(others) == 2
    rise = (model.layer.weight[1 - labels] - model.layer.weight[labels]).reshape(images.shape).sign()
    torch.testing.assert_close(ours, (images + EPSILON * rise).clamp(0, 1), rtol=0, atol=1e-6)
    for other in others:
        torch.testing.assert_close(other, ours, rtol=0, atol=1e-6)


def test_the_margin_given_to_others_is_the_one_that_we_raise() -> None:
    logits, labels = torch.randn(50, 10), torch.randint(10, (50,))
    torch.testing.assert_close(margin(logits, labels), our_margin(logits, labels))


def test_rows_count_verdicts_and_those_equal_to_ours(tmp_path: Path) -> None:
    model = bent_model()
    rows = list(compare(Kept(tmp_path, {}), model, some_data(model)))
    assert [row.library for row in rows] == ["ours", "foolbox", "torchattacks"] * 4 + ["ours", "torchattacks"]
    for row in rows:
        assert row.images == 40
        assert (row.low, row.high) == Accuracy(row.correct, 40).interval()
        assert row.largest <= EPSILON + 1e-6
        assert (row.equal is None) == (row.library == "ours")
        assert row.equal is None or row.equal >= 0.95
    assert 0 < rows[0].correct < 39


def test_cells_of_a_row() -> None:
    right = torch.tensor([True, False, False, True])
    row = Row.of("PGD", "foolbox", right, 0.75, 8 / 255, 12.3)
    assert row.cells() == ("PGD", "foolbox", "50.0%", "6.8% to 93.2%", "75.0%", "8.00000", "12")


def test_script_writes_numbers_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.libraries.STEPS", (1, 2))
    save_tensors(tmp_path / "weights.safetensors", resnet32().state_dict())
    app = typer.Typer()
    app.command()(main)
    data = cifar10_folder(tmp_path / "data")
    arguments = ["--data-dir", data, "--weights", tmp_path / "weights.safetensors", "--output", tmp_path / "found"]
    arguments += ["--work", tmp_path / "work"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--limit", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = load_json(tmp_path / "found" / "results.json")
    assert found["model"] == "weights"
    assert found["data"]["images"] == 2
    assert len(found["rows"]) == 14
    assert found["libraries"]["foolbox"].startswith("3.3")
    page = (tmp_path / "found" / "README.md").read_text()
    assert result.stdout.strip() in page
    assert "{" not in page
    assert result.stderr.count("PGD, margin, 2 steps; foolbox") == 1
