"""The nominal defense trained in float32 and in bfloat16 on one short schedule.

Both learn from the same images in the same order with the same masks, and are scored in float32 on images that neither
learned from. A stopped training is resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import dictionary_digest, load_dictionary
from neuroae.evaluation import Record
from neuroae.evaluation.checks.outcomes import Pairs
from neuroae.evaluation.statistics import draw_accuracy, vote_accuracy
from neuroae.models.presets import CIFAR10, make_defense
from neuroae.training import Epoch, Run, TrainingSettings, train_supervised
from neuroae.utils.contexts import PRECISIONS
from neuroae.utils.markdown import table
from neuroae.utils.versions import versions
from results.options import OUTPUT, WORK, DataDir, Output, Work
from results.outputs import accuracy_numbers, interval_cell, write_results
from results.runs import score_clean

HELD_OUT = 5000
ENSEMBLE = 10
SEED = 0
COLUMNS = ("precision", "loss", "accuracy while learning", "accuracy, E = 10", "95% interval", "E = 1", "95% interval")
NOTE = """\
Loss and accuracy while learning are of the last of {epochs} epochs over {images:,} training images. Accuracies with
E = 10 (Clopper-Pearson) and E = 1 (mean over 10 draws, bootstrap over images) are of {held_out:,} images held out of
the training, scored in float32; the atoms were learned from all of the images. Of the images held out, {first} are
right by the float32 model alone, and {second} by the bfloat16 model alone (p = {p:.2g}, McNemar's exact test).

Made by `python -m results schedule --data-dir DIR`; `results.json` holds the numbers in full and the versions."""


def schedule(
    data_dir: DataDir,
    dictionary: Annotated[Path, typer.Option(help="File with the atoms.")] = Path(
        "results/dictionary/dictionary.safetensors"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 2,
    work: Work = WORK,
    output: Output = OUTPUT,
) -> None:
    """The defense trained in float32 and in bfloat16."""
    data, held_out = load_dataset("cifar10", "train", data_dir).hold_out(HELD_OUT, SEED)
    settings = TrainingSettings(epochs=epochs, augment=True, seed=SEED)
    atoms = load_dictionary(dictionary)
    rows, records = {}, {}
    for precision in PRECISIONS:
        history, records[precision] = train_and_score(precision, atoms, data, held_out, settings, work / "schedule")
        rows[precision] = numbers(history, records[precision])
    pairs = compare(records)
    text = table(COLUMNS, [cells(precision, row) for precision, row in rows.items()])
    sizes = {"images": len(data), "held_out": len(held_out)}
    note = NOTE.format(epochs=epochs, **sizes, first=pairs.first, second=pairs.second, p=pairs.p)
    write_results(
        output / "schedule",
        "Training in float32 and in bfloat16",
        [text, note],
        sizes | {"rows": rows, "pairs": pairs._asdict(), "versions": versions()},
    )


def train_and_score(
    precision: str, atoms: Tensor, data: ImageSet, held_out: ImageSet, settings: TrainingSettings, folder: Path
) -> tuple[list[Epoch], list[Record]]:
    """Returns the epochs of a training in this precision, and the model's records of the images held out."""
    model = make_defense(CIFAR10, atoms, (32, 32), len(data.classes), SEED)
    run = Run(folder / precision, identity={"dictionary": dictionary_digest(atoms)})
    history = train_supervised(model, data, replace(settings, precision=precision), run)
    return history, score_clean(model, held_out, ENSEMBLE, SEED, precision).records


def numbers(history: list[Epoch], records: Sequence[Record]) -> dict[str, Any]:
    """Returns one training's numbers for JSON, accuracies in [0, 1]."""
    draw = {"draw": asdict(draw_accuracy(records)), "epochs": [asdict(epoch) for epoch in history]}
    return accuracy_numbers(vote_accuracy(records)) | draw


def cells(precision: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    last, draw = row["epochs"][-1], row["draw"]
    vote_interval, draw_interval = (interval_cell(ends["low"], ends["high"]) for ends in (row, draw))
    learned = f"{last['loss']:.4f}", f"{last['accuracy']:.1%}"
    return precision, *learned, f"{row['accuracy']:.1%}", vote_interval, f"{draw['value']:.1%}", draw_interval


def compare(records: Mapping[str, Sequence[Record]]) -> Pairs:
    """Compares the answers of two models to the same images (see ``Pairs``); the first records' model comes first."""
    first, second = ({record.image: record.vote == record.label for record in each} for each in records.values())
    pairs = Pairs.of(second, first)
    assert pairs is not None
    return pairs
