"""The pictures of the documents follow from speed.md and from the shipped defense."""

from pathlib import Path

import pytest
import torch

from neuroae import Defense
from shared_data import load_module

ROOT = Path(__file__).resolve().parents[1]
figures = load_module(ROOT / "docs/figures.py")


def test_times_are_those_of_the_page() -> None:
    page = (
        "| what | ms | times |\n| --- | ---: | --- |\n| a step | 4.80 | 5.0 (4.6 to 5.2) |\n| other | 1.5 | none |\n"
    )
    assert figures.read_times(page) == {"a step": (pytest.approx(24.0), 4.8)}


def test_bars_of_the_time_picture_add_up() -> None:
    page = (ROOT / "docs/speed.md").read_text()
    (axes,) = figures.draw_time(page).axes
    ends = [bars[row].get_x() + bars[row].get_width() for bars in axes.containers[-1:] for row in (0, 1)]
    assert ends == pytest.approx(figures.read_times(page)[figures.WHOLE])
    assert all(bar.get_width() > 0 for bars in axes.containers for bar in bars)


def test_the_pipeline_shows_both_rows_and_their_codes() -> None:
    model = Defense.from_pretrained("cifar10")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    figure = figures.draw_pipeline(model, image, torch.tensor([3]), tuple("abcdefghij"), seed=0)
    assert len(figure.axes) == 2 * len(figures.COLUMNS)
    clean, attacked = (figure.axes[row * len(figures.COLUMNS)].images[0].get_array() for row in (0, 1))
    assert 0 < abs(clean - attacked).max() <= 8 / 255 + 1e-6
    code = model.encoder.encode(image, seed=1)
    survivors = int(code.count[(0, *figures.PATCH)])
    assert figure.axes[2].texts[0].get_text() == f"{survivors} survive dropout"
