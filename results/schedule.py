"""The nominal defense trained in float32 and in bfloat16 on one short schedule: ``python -m results.schedule --help``.

Both learn from the same images in the same order with the same masks, and are scored in float32 on images that neither
learned from. A run that was stopped goes on.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import dictionary_digest, load_dictionary
from neuroae.evaluation import CLEAN, Evaluation, Results, Scoring, run_evaluation
from neuroae.evaluation.checks.outcomes import Pairs, Verdicts
from neuroae.models.presets import CIFAR10, make_defense
from neuroae.training import Epoch, Run, TrainingSettings, train_supervised
from neuroae.utils.contexts import PRECISIONS
from neuroae.utils.files import save_json
from neuroae.utils.markdown import table
from neuroae.utils.versions import versions
from results.command import run
from results.page import write_page

HELD_OUT = 5000
ENSEMBLE = 10
SEED = 0
COLUMNS = ("precision", "loss", "accuracy while learning", "accuracy, E = 10", "95% interval", "E = 1", "95% interval")
NOTE = """\
Loss and accuracy while learning are of the last of {epochs} epochs over {images:,} training images. Accuracies with
E = 10 (Clopper-Pearson) and E = 1 (mean over 10 draws, bootstrap over images) are of {held:,} images held out of them,
scored in float32; the atoms come of all of them. Of those held out, {first} are answered rightly by the float32 model
alone, and {second} by the bfloat16 model alone (p = {p:.2g}, McNemar's exact test).

Made by `python -m results.schedule --data-dir DIR`; `results.json` holds the numbers in full and the versions."""


def trained(
    precision: str, atoms: Tensor, data: ImageSet, held: ImageSet, settings: TrainingSettings, folder: Path
) -> tuple[list[Epoch], Results]:
    """Its epochs, and what the model says of the images that were held out."""
    model = make_defense(CIFAR10, atoms, (32, 32), len(data.classes), SEED)
    kept = Run(folder / precision, identity={"dictionary": dictionary_digest(atoms)})
    history = train_supervised(model, data, replace(settings, precision=precision), kept)
    return history, run_evaluation(Evaluation(model, held, [], Scoring(ENSEMBLE, SEED), name=precision))


def numbers(history: list[Epoch], found: Results) -> dict[str, Any]:
    """As JSON holds them; fractions in [0, 1]."""
    accuracy = found.accuracy(CLEAN)
    low, high = accuracy.interval()
    vote = {"accuracy": accuracy.value, "low": low, "high": high}
    return vote | {"draw": asdict(found.draw_accuracy(CLEAN)), "epochs": [asdict(epoch) for epoch in history]}


def cells(precision: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    last, draw = row["epochs"][-1], row["draw"]
    vote, one = (f"{ends['low']:.1%} to {ends['high']:.1%}" for ends in (row, draw))
    learned = f"{last['loss']:.4f}", f"{last['accuracy']:.1%}"
    return precision, *learned, f"{row['accuracy']:.1%}", vote, f"{draw['value']:.1%}", one


def paired(outcomes: Mapping[str, Results]) -> Pairs:
    """Float32 first: which images one of the two alone answers rightly."""
    right = [Verdicts(name, found.records[CLEAN]).right for name, found in outcomes.items()]
    pairs = Pairs.of(right[1], right[0])
    assert pairs is not None
    return pairs


def main(
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    dictionary: Annotated[Path, typer.Option(help="The atoms.")] = Path("results/dictionary/dictionary.safetensors"),
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 2,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/schedule"),
    output: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("results/schedule"),
) -> None:
    """Train the nominal defense in both precisions, and set their accuracies beside each other."""
    data, held = load_dataset("cifar10", "train", data_dir).hold_out(HELD_OUT, SEED)
    settings = TrainingSettings(epochs=epochs, augment=True, seed=SEED)
    atoms = load_dictionary(dictionary)
    rows, outcomes = {}, {}
    for precision in PRECISIONS:
        history, outcomes[precision] = trained(precision, atoms, data, held, settings, work)
        rows[precision] = numbers(history, outcomes[precision])
    pairs = paired(outcomes)
    images = {"images": len(data), "held_out": len(held)}
    save_json(output / "results.json", images | {"rows": rows, "pairs": pairs._asdict(), "versions": versions()})
    text = table(COLUMNS, [cells(precision, row) for precision, row in rows.items()])
    note = NOTE.format(
        epochs=epochs, images=len(data), held=len(held), first=pairs.first, second=pairs.second, p=pairs.p
    )
    write_page(output, "Training in float32 and in bfloat16", [text, note])
    print(text)


if __name__ == "__main__":
    run(main)
