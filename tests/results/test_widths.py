"""The widths of the gradient through the selection on a dictionary alone."""

from dataclasses import replace

import pytest
import torch

from dictionaries import unit_atoms
from neuroae.models.presets import PRESETS
from results.widths import WIDTHS, encoder_of, mean_rises, rise


def test_a_step_along_the_gradient_raises_what_it_is_the_gradient_of() -> None:
    preset = replace(PRESETS["digits"], top_t=6, epsilon=0.05)
    atoms, images = unit_atoms(40, 1, 4), torch.rand(2, 1, 8, 8)
    rises = mean_rises(preset, atoms, images)
    assert list(rises) == [*(f"{width:g}" for width in WIDTHS), "W-NFGA"]
    assert rises["0.1"] > 0
    scale = 0.1 * preset.epsilon * float(atoms.abs().sum((1, 2, 3)).mean())
    encoder = encoder_of(preset, atoms, "selection", scale)
    assert encoder.resolved_selection_width() == pytest.approx(scale)
    assert rise(encoder, images, preset.epsilon) == rises["0.1"]
