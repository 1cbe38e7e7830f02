"""Pictures of a dictionary: its atoms, and what they have in common with patches."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from ..storage import replacing
from .style import default_style

ZERO = 0.5
INCHES_AN_ATOM = 0.32
BINS = 41


@default_style()
def draw_atoms(path: Path, atoms: Tensor) -> None:
    """Writes the atoms as a grid, row by row from the largest l1 norm, even patches, to the smallest, single spots.

    Each atom is scaled to its largest magnitude; gray is zero. Copies have equal norms and so stand side by side.

    Args:
        path: of a PNG.
        atoms: (L, C, n, n), with C 1 (gray) or 3 (RGB).
    """
    norms = atoms.abs().sum((1, 2, 3))
    columns = math.ceil(math.sqrt(len(atoms)))
    mosaic = tiled(atoms[norms.argsort(descending=True, stable=True)], columns)
    side = INCHES_AN_ATOM * columns
    figure = Figure(figsize=(side, side * mosaic.shape[0] / mosaic.shape[1] + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic.numpy(), interpolation="nearest")
    axis.set_axis_off()
    size = " x ".join(map(str, atoms.shape[1:]))
    axis.set_title(f"{len(atoms)} atoms of {size}, by l1 norm from {norms.max():.2f} to {norms.min():.2f}", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def tiled(atoms: Tensor, columns: int) -> Tensor:
    """(rows (n + 1) + 1, columns (n + 1) + 1, 3) in [0, 1]: the atoms in order, on gray."""
    rows = math.ceil(len(atoms) / columns)
    shown = (ZERO + 0.5 * atoms / atoms.abs().amax((1, 2, 3), keepdim=True)).expand(-1, 3, -1, -1)
    framed = F.pad(shown, (0, 1, 0, 1), value=ZERO)
    empty = torch.full((rows * columns - len(atoms), *framed.shape[1:]), ZERO)
    grid = torch.cat([framed, empty]).unflatten(0, (rows, columns))
    mosaic = grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return F.pad(mosaic, (0, 0, 1, 0, 1, 0), value=ZERO)


@default_style()
def draw_histograms(path: Path, patches: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes each patch beside histograms of the numbers that belong to it (the paper's Figures 2 and 5).

    Args:
        path: of a PNG.
        patches: (K, C, n, n) in [0, 1].
        panels: title of a panel to its histograms, name to (K, numbers). All panels of a patch share one axis of
            values, and each histogram counts shares of its own numbers.
    """
    columns = 1 if len(patches) == 1 else 2
    rows = math.ceil(len(patches) / columns)
    figure = Figure(figsize=((1 + 3 * len(panels)) * columns, 0.4 + 1.9 * rows), layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).flatten()
    for number, (part, patch) in enumerate(zip(parts, patches, strict=False)):
        own = {
            title: {name: values[number] for name, values in histograms.items()}
            for title, histograms in panels.items()
        }
        draw_patch(part, patch, own)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_patch(figure: SubFigure, patch: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    shown, *axes = figure.subplots(1, 1 + len(panels), width_ratios=[1] + [3] * len(panels))
    shown.imshow(patch.expand(3, -1, -1).permute(1, 2, 0).numpy(), vmin=0, vmax=1, interpolation="nearest")
    shown.set_axis_off()
    every = np.concatenate([values for histograms in panels.values() for values in histograms.values()])
    edges = np.linspace(min(every.min(), 0), max(every.max(), 0), BINS)
    for axis, (title, histograms) in zip(axes, panels.items(), strict=True):
        for name, values in histograms.items():
            axis.hist(
                values,
                edges,
                weights=np.full(len(values), 1 / len(values)),
                histtype="stepfilled",
                alpha=0.6,
                label=name,
            )
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    axes[0].set_ylabel("share", fontsize=7)
