"""Draws the pictures of the README and of how-it-works.md: ``python docs/figures.py --data-dir DIR``.

DIR holds CIFAR-10. ``pipeline.png`` follows one test image, clean and attacked, through the shipped defense.
``time.png`` shows the medians of speed.md, and takes them from its tables.
"""

import re
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense
from neuroae.attacks import PGDSettings, pgd
from neuroae.data import load_dataset
from neuroae.kernels.reference import project
from neuroae.utils.files import replacing

DOCS = Path(__file__).resolve().parent
PATCH = (7, 7)
ENSEMBLE = 10
IDS = torch.zeros(1, dtype=torch.int64)
COLUMNS = (
    "image",
    "encoder: one patch on the atoms",
    "its compact code",
    "decoder",
    f"classifier, mean of {ENSEMBLE}",
)
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
GRAY, TEAL, ORANGE = "#b8c4c4", "#00796b", "#e65100"
# The parts of the second picture, as the tables of speed.md name them; the last is the whole that they belong to.
ENCODE, FIRST_LAYER = "encode to the compact code", "the same and the gradient to the code"
WHOLE = "whole defense, forward and image gradient"


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    image: Annotated[int, typer.Option(help="Number of the test image.")] = 7,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = DOCS / "pictures",
) -> None:
    """Draw the pictures of the documents."""
    data = load_dataset("cifar10", "test", data_dir)
    chosen = slice(image, image + 1)
    model = Defense.from_pretrained("cifar10")
    save(
        draw_pipeline(model, data.pixels()[chosen], data.labels[chosen], data.classes, seed=0), output / "pipeline.png"
    )
    save(draw_time((DOCS / "speed.md").read_text()), output / "time.png")


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, completely or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_pipeline(model: Defense, image: Tensor, label: Tensor, classes: tuple[str, ...], seed: int) -> Figure:
    """Draws an image, and below it the same image attacked, on the way through a defense.

    Args:
        model: The defense.
        image: (1, C, H, W) float32 in [0, 1].
        label: (1,) int64, a position in ``classes``.
        classes: The names of the classes.
        seed: The seed of all draws.
    """
    attacked = pgd(
        model.with_surrogate("selection"), image, label, PGDSettings.selection(), seed=seed, image_ids=IDS
    ).images
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    rows = figure.subplots(2, len(COLUMNS), width_ratios=(1, 2, 2, 1, 1.6))
    for axes, title in zip(rows[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=10)
    for axes, title, pixels in zip(rows, ("clean", "attacked"), (image, attacked), strict=True):
        draw_stages(axes, model, pixels, int(label), classes, seed + 1)
        axes[0].set_ylabel(title)
    for axes in rows[-1, 1:3]:
        axes.set_xlabel(f"number of the atom, of {len(model.encoder.atoms)}", fontsize=9)
    return figure


def draw_stages(
    row: list[Axes], model: Defense, image: Tensor, label: int, classes: tuple[str, ...], seed: int
) -> None:
    """Draws one image's stages into a row of axes; the label's bar has another color."""
    encoder = model.encoder
    with torch.no_grad():
        projections = project(image, encoder.atoms, encoder.stride)[(0, *PATCH)].numpy()
        code = encoder.encode(image, seed=seed)
        decoded = model.decoder(code)[0]
        probabilities = model.predict_proba(image, ENSEMBLE, seed=seed)[0].numpy()
    selected = abs(projections).argsort()[-encoder.top_t :]
    dense = code.to_dense()[(0, slice(None), *PATCH)].numpy()
    survivors = code.index[(0, *PATCH)][: int(code.count[(0, *PATCH)])].long().numpy()
    row[1].vlines(range(len(projections)), 0, projections, color=GRAY, linewidth=0.8)
    row[1].vlines(selected, 0, projections[selected], color=TEAL, linewidth=0.8, label=f"top {encoder.top_t}")
    row[1].legend(fontsize=8, loc="upper left")
    row[2].vlines(survivors, 0, dense[survivors], color=TEAL, linewidth=2)
    row[2].axhline(0, color="black", linewidth=0.6)
    row[2].set_xlim(row[1].get_xlim())
    row[2].text(
        0.02, 0.92, f"{len(survivors)} survive dropout", transform=row[2].transAxes, fontsize=8, va="top", bbox=WHITE
    )
    for axes, pixels in ((row[0], image[0]), (row[3], decoded)):
        axes.imshow(pixels.permute(1, 2, 0).squeeze(-1).numpy(), vmin=0, vmax=1, cmap="gray")
        axes.set_xticks([])
        axes.set_yticks([])
    colors = [TEAL if number == label else ORANGE for number in range(len(classes))]
    row[4].barh(classes, probabilities, color=colors)
    row[4].invert_yaxis()
    row[4].set_xlim(0, 1)
    for axes in (row[1], row[2], row[4]):
        axes.tick_params(labelsize=8)


class Times(NamedTuple):
    """Milliseconds an image, in eager PyTorch and here."""

    eager: float
    ours: float


def read_times(page: str) -> dict[str, Times]:
    """Returns the medians of speed.md's tables by row; the eager ones are ours times the ratios."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \(", page, re.MULTILINE)
    return {name: Times(float(ours) * float(ratio), float(ours)) for name, ours, ratio in rows}


def draw_time(page: str) -> Figure:
    """Draws the parts of an image gradient as two bars, from the text of speed.md."""
    times = read_times(page)
    encode, first, whole = times[ENCODE], times[FIRST_LAYER], times[WHOLE]
    rest = Times(*(total - part - other for total, part, other in zip(whole, encode, first, strict=True)))
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    names, start = ("eager PyTorch", "neuroae"), [0.0, 0.0]
    parts = (
        (encode, "encoder", ORANGE),
        (first, "first decoder layer and its gradient", TEAL),
        (rest, "the rest", GRAY),
    )
    for part, label, color in parts:
        axes.barh(names, part, left=start, color=color, label=label)
        start = [left + width for left, width in zip(start, part, strict=True)]
    for name, total in zip(names, whole, strict=True):
        axes.text(total, name, f" {total:.1f}", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * whole.eager)
    axes.set_xlabel("milliseconds an image, forward pass with the gradient to the image")
    axes.legend(fontsize=8, loc="lower right")
    return figure


if __name__ == "__main__":
    typer.run(main)
