"""How a shipped model learned, over all of its trainings: ``python -m results.learning --help``.

It reads what the model's ``config.json`` keeps of them, and measures nothing itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroae.models import load_pretrained
from neuroae.reports.charts import draw_curves, save_epochs
from neuroae.training import Epoch
from neuroae.utils.markdown import table
from results.command import run
from results.page import write_page

COLUMNS = ("cycle", "stage", "epochs", "peak rate", "loss", "accuracy", "of the last epoch", "of the last five")
LAST = 5
NOTE = """\
Losses and accuracies are of the training images while they were learned from, with augmentation on, and of a defense
one draw an image, in the last epoch of each stage. The last two columns say how many points of accuracy the last epoch
and the last five brought.

![Loss, accuracy and learning rate of each stage](curves.png)

Made by `python -m results.learning {name}` of what the model's `config.json` keeps; `epochs-CYCLE.csv` holds every
epoch of a cycle."""


def cycles(notes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trainings that made a model, oldest first, with the epochs of each by their stage.

    Raises:
        ValueError: the notes do not hold them.
    """
    trainings = [*notes.get("earlier", []), notes]
    if not all({"run", "epochs"} <= training.keys() for training in trainings):
        raise ValueError("the model's config.json does not say how it was trained")
    found = []
    for training in trainings:
        stages: dict[str, list[Epoch]] = {}
        for fields in training["epochs"]:
            epoch = Epoch(**fields)
            stages.setdefault(epoch.stage, []).append(epoch)
        found.append({"rate": training["run"]["training"]["learning_rate"], "stages": stages})
    return found


def gain(epochs: Sequence[Epoch], last: int) -> str:
    """Points of accuracy that the last so many epochs brought; empty where they cannot be told."""
    before, end = epochs[-1 - last] if len(epochs) > last else None, epochs[-1]
    if before is None or before.accuracy is None or end.accuracy is None:
        return ""
    return f"{100 * (end.accuracy - before.accuracy):+.1f}"


def rows(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            f"{number}",
            stage,
            f"{len(epochs)}",
            f"{cycle['rate']:g}",
            f"{epochs[-1].loss:.4g}",
            "" if epochs[-1].accuracy is None else f"{epochs[-1].accuracy:.1%}",
            gain(epochs, 1),
            gain(epochs, LAST),
        )
        for number, cycle in enumerate(found, 1)
        for stage, epochs in cycle["stages"].items()
    ]


def main(
    name: Annotated[str, typer.Argument(help="A shipped model, or the folder of one.")],
    output: Annotated[Path, typer.Option(help="Folder for the folder of the page.")] = Path("results/learning"),
) -> None:
    """Draw the curves of all trainings that made a model, and say what their last epochs brought."""
    found = cycles(load_pretrained(name)[1])
    model = Path(name).name
    stages = {
        f"{stage}, cycle {number}" if len(found) > 1 else stage: epochs
        for number, cycle in enumerate(found, 1)
        for stage, epochs in cycle["stages"].items()
    }
    folder = output / model
    folder.mkdir(parents=True, exist_ok=True)
    draw_curves(folder / "curves.png", stages)
    for number, cycle in enumerate(found, 1):
        save_epochs(
            folder / f"epochs-{number}.csv", [epoch for epochs in cycle["stages"].values() for epoch in epochs]
        )
    text = table(COLUMNS, rows(found), text_columns=2)
    write_page(folder, f"How {model} learned", [text, NOTE.format(name=model)])
    print(text)


if __name__ == "__main__":
    run(main)
