"""How a shipped model learned, over all of its trainings, from the epochs that its ``config.json`` keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroae.models import load_pretrained
from neuroae.reports.training_record import draw_curves, save_epochs
from neuroae.training import Epoch
from neuroae.utils.markdown import table
from results.options import OUTPUT, Model, Output
from results.outputs import write_results

COLUMNS = ("cycle", "stage", "epochs", "peak rate", "loss", "accuracy", "of the last epoch", "of the last five")
LAST = 5
NOTE = """\
Loss and accuracy are those of the last epoch of each stage, on the training images while the model learned from them,
with augmentation on, and for a defense with one draw an image. The last two columns say how many points of accuracy
the last epoch and the last five brought.

![Loss, accuracy and learning rate of each stage](curves.png)

Made by `python -m results learning --model {name}` from the model's `config.json`; `epochs-CYCLE.csv` holds every
epoch of a cycle."""


def learning(model: Model = "cifar10", output: Output = OUTPUT) -> None:
    """How a shipped model learned."""
    trainings = cycles(load_pretrained(model)[1])
    name = Path(model).name
    stages = {
        f"{stage}, cycle {number}" if len(trainings) > 1 else stage: epochs
        for number, cycle in enumerate(trainings, 1)
        for stage, epochs in cycle["stages"].items()
    }
    folder = output / "learning" / name
    folder.mkdir(parents=True, exist_ok=True)
    draw_curves(folder / "curves.png", stages)
    for number, cycle in enumerate(trainings, 1):
        epochs = [epoch for stage in cycle["stages"].values() for epoch in stage]
        save_epochs(folder / f"epochs-{number}.csv", epochs)
    text = table(COLUMNS, rows(trainings), text_columns=2)
    write_results(folder, f"How {name} learned", [text, NOTE.format(name=name)])


def cycles(notes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the peak learning rate and the epochs by stage of each of a model's trainings, oldest first.

    Raises:
        ValueError: The notes do not hold the trainings.
    """
    trainings = [*notes.get("earlier", []), notes]
    if not all({"run", "epochs"} <= training.keys() for training in trainings):
        raise ValueError("the model's config.json does not say how it was trained")
    cycles = []
    for training in trainings:
        stages: dict[str, list[Epoch]] = {}
        for fields in training["epochs"]:
            epoch = Epoch(**fields)
            stages.setdefault(epoch.stage, []).append(epoch)
        cycles.append({"rate": training["run"]["training"]["learning_rate"], "stages": stages})
    return cycles


def gain(epochs: Sequence[Epoch], last: int) -> str:
    """Returns the points of accuracy gained in the last epochs, ``last`` of them; "" if that is unknown."""
    earlier, end = epochs[-1 - last] if len(epochs) > last else None, epochs[-1]
    if earlier is None or earlier.accuracy is None or end.accuracy is None:
        return ""
    return f"{100 * (end.accuracy - earlier.accuracy):+.1f}"


def rows(cycles: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
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
        for number, cycle in enumerate(cycles, 1)
        for stage, epochs in cycle["stages"].items()
    ]
