"""Pictures of a dictionary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from dictionaries import unit_atoms
from neuroae.reports.pictures import draw_atoms, draw_histograms, tiled


@pytest.mark.parametrize(("count", "columns"), [(6, 3), (7, 3), (1, 1), (5, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_atoms_stand_in_a_grid_around_gray(count: int, columns: int, channels: int) -> None:
    atoms = unit_atoms(count, channels, 4)
    mosaic = tiled(atoms, columns)
    rows = -(-count // columns)
    assert mosaic.shape == (5 * rows + 1, 5 * columns + 1, 3)
    canvas = torch.full_like(mosaic, 0.5)
    for number, atom in enumerate(atoms):
        top, left = 1 + 5 * (number // columns), 1 + 5 * (number % columns)
        tile = mosaic[top : top + 4, left : left + 4]
        canvas[top : top + 4, left : left + 4] = tile
        expected = (0.5 + atom / (2 * atom.abs().max())).permute(1, 2, 0).expand(4, 4, 3)
        torch.testing.assert_close(tile, expected)
    assert torch.equal(mosaic, canvas)


def recorded(monkeypatch: pytest.MonkeyPatch, method: str) -> list[tuple[Any, ...]]:
    """Records the calls of a method of matplotlib's axes from now on: positional arguments and weights."""
    calls: list[tuple[Any, ...]] = []
    original = getattr(Axes, method)

    def recording(self: Axes, *arguments: Any, **settings: Any) -> Any:
        calls.append((*arguments, settings.get("weights")))
        return original(self, *arguments, **settings)

    monkeypatch.setattr(Axes, method, recording)
    return calls


def test_atoms_come_by_falling_l1_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = recorded(monkeypatch, "imshow")
    atoms = unit_atoms(10, 3, 4)
    draw_atoms(tmp_path / "atoms.png", atoms)
    order = sorted(range(10), key=lambda number: -float(atoms[number].abs().sum()))
    np.testing.assert_array_equal(images[0][0], tiled(torch.stack([atoms[number] for number in order]), 4).numpy())
    assert (tmp_path / "atoms.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("count", [1, 3])
def test_each_patch_has_its_own_histograms_on_one_axis_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    images, histograms = recorded(monkeypatch, "imshow"), recorded(monkeypatch, "hist")
    patches: Tensor = torch.rand(count, 3, 4, 4)
    generator = np.random.default_rng(0)
    panels = {
        "left": {"a": generator.normal(5, 1, (count, 9)), "b": generator.normal(-2, 1, (count, 20))},
        "right": {"c": generator.normal(0, 9, (count, 7))},
    }
    draw_histograms(tmp_path / "histograms.png", patches, panels)
    np.testing.assert_array_equal(np.stack([call[0] for call in images]), patches.permute(0, 2, 3, 1).numpy())
    expected = [values[row] for row in range(count) for panel in panels.values() for values in panel.values()]
    assert len(histograms) == len(expected)
    for (values, edges, weights), expected_values in zip(histograms, expected, strict=True):
        np.testing.assert_array_equal(values, expected_values)
        counted, _ = np.histogram(values, edges, weights=weights)
        assert counted.sum() == pytest.approx(1)
    for first in range(0, len(histograms), 3):
        assert all(np.array_equal(edges, histograms[first][1]) for _, edges, _ in histograms[first : first + 3])
    assert (tmp_path / "histograms.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
