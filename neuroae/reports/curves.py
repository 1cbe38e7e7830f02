"""What a training has done so far: a table of its epochs, and a picture of them."""

import csv
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..storage import replacing
from ..training import Epoch
from .style import default_style, dispensable

TABLE = "epochs.csv"
PICTURE = "curves.png"


class TrainingRecord:
    """Keeps ``epochs.csv`` and ``curves.png`` in a folder up to date, over all stages of a training."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stages: dict[str, list[Epoch]] = {}

    def update(self, epochs: list[Epoch]) -> None:
        """Takes the epochs of one stage so far, and writes both files anew."""
        self.stages[epochs[0].stage] = epochs
        save_epochs(self.folder / TABLE, [epoch for stage in self.stages.values() for epoch in stage])
        with dispensable(self.folder / PICTURE):
            draw_curves(self.folder / PICTURE, self.stages)


def save_epochs(path: Path, epochs: list[Epoch]) -> None:
    """A line an epoch; what was not measured stays empty."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)


@default_style()
def draw_curves(path: Path, stages: dict[str, list[Epoch]]) -> None:
    """Loss, accuracy and learning rate of each stage against its epochs."""
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
    found = [(epoch.number, getattr(epoch, name)) for epoch in epochs if getattr(epoch, name) is not None]
    if found:
        axis.plot(*zip(*found, strict=True), marker=".", label=label)
