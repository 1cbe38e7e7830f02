"""Images before and after the autoencoder: what is decoded, how the loss is measured, and what is written."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import random_images, small_defense
from neuroae import derive_seed
from neuroae.data import ImageSet
from neuroae.utils.files import load_json
from results.autoencoder import MEAN, NUM_EXAMPLES, ONE, Decoded, Distortion, decode, markdown
from results_data import cifar10_folder, run, small_cifar10_defense


@pytest.mark.parametrize("block", [4, 64])
def test_first_realization_and_mean_are_those_of_the_model(block: int) -> None:
    model = small_defense()
    images, _, ids = random_images(6)
    decoded = decode(model, images, ids, realizations=5, seed=2, block=block)
    masks = derive_seed(2, "autoencoder")
    with torch.no_grad():
        torch.testing.assert_close(decoded[ONE], model.autoencode(images, masks, ids))
        every = model.decoder(model.encoder.encode(images, 5, masks, ids)).unflatten(0, (5, 6))
    torch.testing.assert_close(decoded[MEAN], every.mean(0))
    assert not torch.equal(decoded[ONE], decoded[MEAN])


def gray(*levels: int) -> ImageSet:
    """Returns images of one gray level each."""
    images = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return ImageSet("gray", images, torch.zeros(len(levels)).long(), torch.arange(len(levels)) + 5, ("cat",))


def shifted(data: ImageSet, *shifts: float) -> Tensor:
    return data.pixels() + torch.tensor(shifts).reshape(-1, 1, 1, 1)


def test_distortion_is_measured_per_image_and_over_all() -> None:
    """Errors are measured against the encoded images, which may be attacked ones."""
    data = gray(0, 51, 102)
    decoded = {ONE: shifted(data, 0.15, 0.25, 0.35), MEAN: shifted(data, 0.15, 0.05, 0.05)}
    measured = Decoded.of(data, shifted(data, 0.05, 0.05, 0.05), decoded)
    overall, examples = measured.overall, measured.examples
    assert overall[ONE].mse == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert overall[MEAN].mse == pytest.approx(0.01 / 3)
    assert overall[MEAN].psnr == pytest.approx(10 * math.log10(300), rel=1e-5)
    assert [(one.image, one.label) for one in examples] == [(5, "cat"), (6, "cat"), (7, "cat")]
    assert [one.distortions[ONE].mse for one in examples] == pytest.approx([0.01, 0.04, 0.09])
    assert examples[0].distortions[MEAN].psnr == pytest.approx(20)


def test_an_exact_image_has_no_psnr() -> None:
    assert Distortion.of(0.0) == Distortion(0.0, None)
    assert Distortion.of(0.0).cells() == ("0.00000", "exact")


def test_only_the_first_images_are_examples() -> None:
    data = gray(*range(NUM_EXAMPLES + 3))
    measured = Decoded.of(data, data.pixels(), dict.fromkeys((ONE, MEAN), shifted(data, *[0.1] * len(data))))
    assert len(measured.examples) == len(measured.before) == len(measured.after[ONE]) == NUM_EXAMPLES
    lines = markdown({"clean": measured, "attacked": measured}).splitlines()
    assert len(lines) == 2 + 2 * (1 + NUM_EXAMPLES)
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["clean", "all 13", *["0.01000", "20.0 dB"] * 2]


def test_rows_of_the_picture_are_the_images_before_and_after() -> None:
    data = gray(0, 128, 255)
    before, decoded = shifted(data, 0.1, 0.0, 0.0), shifted(data, 0.5, 0.1, -0.5)
    first, second = Decoded.of(data, before, {ONE: decoded}).strips("attacked")
    assert (first.name, second.name.split(",")[0]) == ("attacked", ONE)
    assert torch.equal(first.images, before)
    assert torch.equal(second.images, decoded)
    assert second.right == [False, True, False]


def test_command_writes_numbers_table_and_picture(tmp_path: Path) -> None:
    small_cifar10_defense().save_pretrained(tmp_path / "model")
    data = cifar10_folder(tmp_path / "data")
    result = run("autoencoder", "--model", tmp_path / "model", "--data-dir", data, "--output", tmp_path)
    folder = tmp_path / "autoencoder"
    numbers = load_json(folder / "autoencoder.json")
    clean = numbers["kinds"]["clean"]
    assert numbers["data"]["images"] == clean["images"] == len(clean["examples"]) == 6
    for name in (ONE, MEAN):
        each = [one["distortions"][name]["mse"] for one in clean["examples"]]
        assert clean["all"][name]["mse"] == pytest.approx(sum(each) / 6)
    page = (folder / "README.md").read_text()
    assert page.startswith("# Figure 9")
    assert result.stdout.strip() in page
    assert f"fingerprint {numbers['fingerprint'][:16]}" in page
    assert (folder / "autoencoder.png").stat().st_size > 10_000
