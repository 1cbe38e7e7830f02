"""The record of a training in its folder: a table of its epochs, and a picture of their curves."""

import csv
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..training import Epoch
from ..utils.files import replacing
from .charts import default_style, dispensable

TABLE = "epochs.csv"
PICTURE = "curves.png"


class TrainingRecord:
    """Keeps ``epochs.csv`` and ``curves.png`` in a folder up to date, over all stages of a training.

    Args:
        folder: The folder of the training.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stages: dict[str, list[Epoch]] = {}

    def update(self, epochs: list[Epoch]) -> None:
        """Writes both files again, with these epochs for their stage."""
        self.stages[epochs[0].stage] = epochs
        save_epochs(self.folder / TABLE, [epoch for stage in self.stages.values() for epoch in stage])
        with dispensable(self.folder / PICTURE):
            draw_curves(self.folder / PICTURE, self.stages)


def save_epochs(path: Path, epochs: list[Epoch]) -> None:
    """Writes a CSV file with a line for each epoch; what was not measured stays empty."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)


@default_style()
def draw_curves(path: Path, stages: dict[str, list[Epoch]]) -> None:
    """Draws loss, accuracy and learning rate of each stage against its epochs."""
    figure = Figure(figsize=(4 * len(stages), 6.5), layout="constrained")
    axes = figure.subplots(3, len(stages), squeeze=False, sharex="col")
    for column, (stage, epochs) in zip(axes.T, stages.items(), strict=True):
        column[0].set_title(stage)
        column[-1].set_xlabel("epoch")
        for axis, name in zip(column, ("loss", "accuracy"), strict=False):
            draw_values(axis, epochs, name, "training images, while learned from")
            draw_values(axis, epochs, f"validation_{name}", "validation images")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
        draw_values(column[2], epochs, "learning_rate", "learning rate at the end")
        column[2].set_ylabel("learning rate")
        column[2].grid(alpha=0.3)
        column[0].legend(fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_values(axis: Axes, epochs: list[Epoch], name: str, label: str) -> None:
    points = [(epoch.number, getattr(epoch, name)) for epoch in epochs if getattr(epoch, name) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), marker=".", label=label)
