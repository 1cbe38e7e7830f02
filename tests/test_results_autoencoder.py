"""Images before and after the autoencoder: what is decoded, how the loss is measured, and what is written."""

import math
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from models import random_images, small_defense
from neuroae import derive_seed
from neuroae.data import ImageSet
from neuroae.storage import load_json
from results.autoencoder import MEAN, ONE, SHOWN, Distortion, decode, draw, main, markdown, measure
from results_data import cifar10_folder, small_cifar10_defense


@pytest.mark.parametrize("block", [4, 64])
def test_first_realization_and_mean_are_those_of_the_model(block: int) -> None:
    model = small_defense()
    images, _, ids = random_images(6)
    found = decode(model, images, ids, realizations=5, seed=2, block=block)
    masks = derive_seed(2, "autoencoder")
    with torch.no_grad():
        torch.testing.assert_close(found[ONE], model.autoencode(images, masks, ids))
        every = model.decoder(model.encoder.encode(images, 5, masks, ids)).unflatten(0, (5, 6))
    torch.testing.assert_close(found[MEAN], every.mean(0))
    assert not torch.equal(found[ONE], found[MEAN])


def gray(*levels: int) -> ImageSet:
    """Images of one level each."""
    images = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return ImageSet("gray", images, torch.zeros(len(levels)).long(), torch.arange(len(levels)) + 5, ("cat",))


def shifted(data: ImageSet, *shifts: float) -> Tensor:
    return data.pixels() + torch.tensor(shifts).reshape(-1, 1, 1, 1)


def test_distortion_is_measured_per_image_and_over_all() -> None:
    data = gray(0, 51, 102)
    decoded = {ONE: shifted(data, 0.1, 0.2, 0.3), MEAN: shifted(data, 0.1, 0.0, 0.0)}
    overall, examples = measure(decoded, data)
    assert overall[ONE].mse == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert overall[MEAN].mse == pytest.approx(0.01 / 3)
    assert overall[MEAN].psnr == pytest.approx(10 * math.log10(300))
    assert [(one.image, one.label) for one in examples] == [(5, "cat"), (6, "cat"), (7, "cat")]
    assert [one.distortions[ONE].mse for one in examples] == pytest.approx([0.01, 0.04, 0.09])
    assert examples[0].distortions[MEAN].psnr == pytest.approx(20)


def test_an_exact_image_has_no_psnr() -> None:
    assert Distortion.of(0.0) == Distortion(0.0, None)
    assert Distortion.of(0.0).cells() == ("0.00000", "exact")


def test_only_the_first_images_are_examples() -> None:
    data = gray(*range(SHOWN + 3))
    decoded = {ONE: shifted(data, *[0.1] * len(data))}
    overall, examples = measure(decoded, data)
    assert len(examples) == SHOWN
    lines = markdown(overall, examples, len(data)).splitlines()
    assert len(lines) == 2 + 1 + SHOWN
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["all 13", "0.01000", "20.0 dB"]


def test_picture_has_a_row_for_each_kind(tmp_path: Path) -> None:
    data = gray(0, 128, 255)
    decoded = {ONE: shifted(data, 0.5, 0.1, -0.5), MEAN: shifted(data, 0.2, 0.0, -0.2)}
    draw(tmp_path / "some.png", data, decoded, *measure(decoded, data))
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")


def test_script_writes_numbers_table_and_picture(tmp_path: Path) -> None:
    small_cifar10_defense().save_pretrained(tmp_path / "model")
    app = typer.Typer()
    app.command()(main)
    arguments = [tmp_path / "model", "--data-dir", cifar10_folder(tmp_path / "data"), "--output", tmp_path / "found"]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = load_json(tmp_path / "found" / "autoencoder.json")
    assert found["data"]["images"] == len(found["examples"]) == 6
    for name in (ONE, MEAN):
        each = [one["distortions"][name]["mse"] for one in found["examples"]]
        assert found["test"][name]["mse"] == pytest.approx(sum(each) / 6)
    assert (tmp_path / "found" / "autoencoder.md").read_text() in result.stdout
    assert (tmp_path / "found" / "autoencoder.png").stat().st_size > 10_000
