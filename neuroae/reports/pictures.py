"""Pictures of images on their way through a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from ..encoder import SparseEncoder
from ..kernels.reference import to_dense
from ..storage import replacing
from .style import default_style


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of images.

    Attributes:
        name: written at the left.
        images: (K, C, H, W) in [0, 1].
        captions: one an image, or none.
        right: whether each caption is good news; colours it.
    """

    name: str
    images: Tensor
    captions: Sequence[str] = ()
    right: Sequence[bool] = ()

    @classmethod
    def of(cls, name: str, images: Tensor, predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> "Strip":
        """Images captioned with the model's answers; predictions and labels may go on after the images."""
        answers, truth = predictions[: len(images)].tolist(), labels[: len(images)].tolist()
        right = [answer == true for answer, true in zip(answers, truth, strict=True)]
        return cls(name, images, [classes[answer] for answer in answers], right)


def stages(encoder: SparseEncoder, image: Tensor, seed: int) -> dict[str, Tensor]:
    """An image's coefficients after each operation of the encoder (the paper's Figure 3), each (L, m_h, m_w).

    Args:
        encoder: whose dictionary and settings are used.
        image: (C, H, W) in [0, 1].
        seed: of the dropout shown.
    """
    selection = encoder.select(image[None])
    code = selection.draw(seed)
    atoms = encoder.atoms.shape[0]
    return {
        "projections": F.conv2d(image[None], encoder.atoms, stride=encoder.stride)[0],
        f"top {encoder.top_t}": to_dense(selection.projection, selection.atom, atoms)[0],
        f"after dropout, p = {encoder.dropout_p:g}": to_dense(code.projection, code.index, atoms)[0],
        "activated and quantized": to_dense(code.value, code.index, atoms)[0],
    }


@default_style()
def draw_picture(path: str | Path, strips: Sequence[Strip], coefficients: dict[str, Tensor] | None = None) -> None:
    """Writes rows of images, and below them each stage of the coefficients as a map of atoms against patches."""
    columns = max(len(strip.images) for strip in strips)
    heights = [1.25 * len(strips)] + ([3.6] if coefficients else [])
    figure = Figure(figsize=(1.6 + 1.1 * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_strips(parts[0], strips, columns)
    if coefficients:
        draw_coefficients(parts[1], coefficients)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_strips(figure: SubFigure, strips: Sequence[Strip], columns: int) -> None:
    axes = figure.subplots(len(strips), columns, squeeze=False)
    for row, strip in zip(axes, strips, strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        row[0].set_ylabel(strip.name, rotation=0, horizontalalignment="right", verticalalignment="center", fontsize=8)
        for axis, image in zip(row, strip.images, strict=False):
            grey = image.shape[0] == 1
            shown = (image[0] if grey else image.permute(1, 2, 0)).cpu().numpy()
            axis.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1)
        for axis, caption, right in zip(row, strip.captions, strip.right, strict=False):
            axis.set_xlabel(caption, fontsize=8, color="tab:green" if right else "tab:red", labelpad=2)


def draw_coefficients(figure: SubFigure, coefficients: dict[str, Tensor]) -> None:
    axes = figure.subplots(1, len(coefficients), sharey=True)
    largest = max(float(stage.abs().max()) for stage in coefficients.values())
    for axis, (name, stage) in zip(axes, coefficients.items(), strict=True):
        shown = axis.imshow(
            stage.flatten(1).numpy(),
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        share = float(torch.count_nonzero(stage)) / stage.numel()
        axis.set_title(f"{name}\n{share:.1%} not zero", fontsize=8)
        axis.set_xlabel("patch", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("atom", fontsize=8)
    figure.colorbar(shown, ax=axes).ax.tick_params(labelsize=7)
