"""The blur closest to an autoencoder: it is found where the autoencoder is a blur."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuroae import GaussianBlur
from neuroae.data import ImageSet
from neuroae.utils.files import load_json
from results.blur import distance
from results_data import run, small_cifar10_defense


def test_the_distance_is_least_at_the_blur_behind_the_images() -> None:
    images = torch.rand(4, 3, 12, 12)
    difference = distance(images, GaussianBlur(0.9)(images))
    values = {sigma: difference(sigma) for sigma in (0.7, 0.8, 0.9, 1.0, 1.1)}
    assert min(values, key=values.__getitem__) == 0.9
    assert values[0.9] == pytest.approx(0, abs=1e-12)
    assert values[0.7] == pytest.approx(float((GaussianBlur(0.7)(images) - GaussianBlur(0.9)(images)).square().mean()))


def test_the_command_writes_the_best_sigma_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet("some", pixels, torch.arange(5), torch.arange(5), tuple("abcdefghij"))
    monkeypatch.setattr("results.blur.load_dataset", lambda *_: data)

    def decode(_: object, images: Tensor, ids: Tensor) -> Tensor:
        return GaussianBlur(1.05)(images)

    monkeypatch.setattr("results.blur.decode", decode)
    small_cifar10_defense().save_pretrained(tmp_path / "model")
    result = run("blur", "--data-dir", tmp_path, "--model", tmp_path / "model", "--output", tmp_path)
    numbers = load_json(tmp_path / "blur" / "results.json")
    assert numbers["best"] == pytest.approx(1.05, abs=0.01)
    page = (tmp_path / "blur" / "README.md").read_text()
    assert result.stdout.strip() in page
    assert "paper finds 0.625" in page
    assert (tmp_path / "blur" / "blur.png").stat().st_size
