"""``neuroae train``: train a defense, or the classifier alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor, nn

from ..data import DatasetName, ImageSet, load_dataset
from ..dictionary import dictionary_digest
from ..evaluation import Evaluation, Scoring, run_evaluation
from ..models import CONFIG, load_pretrained, save_pretrained
from ..models.fingerprints import fingerprint
from ..models.presets import Preset, make_classifier, make_defense
from ..nn.classifiers import check_sides
from ..nn.defense import Defense
from ..reports import Row, TrainingRecord, markdown_table
from ..training import Epoch, Run, TrainingSettings, train_plain, train_supervised, train_unsupervised
from ..training.settings import Schedule
from ..utils import distributed
from ..utils.contexts import Precision, drawing_from
from ..utils.devices import choose_device
from .dictionary import any_atoms, given_atoms, learned_atoms
from .options import (
    Atoms,
    DataDir,
    Device,
    Download,
    Epsilon,
    HoldOut,
    ImageSize,
    Limit,
    Seed,
    folder,
    overridden,
    preset_option,
)
from .runs import RUN, Start, load_run, require_asked, require_settings, taken

Method = Literal["supervised", "unsupervised", "plain"]


def train(
    dataset: Annotated[DatasetName, typer.Option(help="What to train on.")],
    output: Annotated[
        Path,
        typer.Option(
            parser=folder,
            metavar="PATH",
            help="Folder for the model, checkpoints and curves, new or empty. A run that was stopped goes on from "
            "there.",
        ),
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="Decoder and classifier together, the decoder by regression to the image and then the classifier, "
            "or the classifier alone."
        ),
    ] = "supervised",
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    limit: Limit = None,
    hold_out: HoldOut = 0,
    init: Annotated[
        str | None,
        typer.Option(
            help="Saved model whose weights and atoms to start from, a folder or a name that ships with neuroae.",
            show_default="drawn by the seed",
        ),
    ] = None,
    dictionary: Annotated[
        Path | None,
        typer.Option(help="Atoms to use, from `neuroae dictionary`.", show_default="those of --init, or learn them"),
    ] = None,
    atoms: Atoms = None,
    stride: Annotated[int | None, preset_option("stride", "S, pixels between patches.", min=1)] = None,
    top_t: Annotated[int | None, preset_option("top_t", "T, coefficients kept of a patch.", min=1)] = None,
    dropout_p: Annotated[float | None, preset_option("dropout_p", "p, how often each is dropped.", min=0)] = None,
    epsilon: Epsilon = None,
    beta: Annotated[float | None, preset_option("beta", "Width of the dead zone, in epsilons.", min=0)] = None,
    quantize: Annotated[
        bool | None, typer.Option(help="Reduce coefficients to their signs.", show_default="quantize")
    ] = None,
    epochs: Annotated[int | None, preset_option("epochs", "Passes over the images.", min=1)] = None,
    decoder_epochs: Annotated[
        int | None, preset_option("decoder_epochs", "Passes for an unsupervised decoder.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step, over all processes.")] = 64,
    learning_rate: Annotated[float | None, preset_option("learning_rate", "At the peak.", min=0)] = None,
    schedule: Annotated[
        Schedule, typer.Option(help="Of the learning rate: from 0 to the peak and back to 0, or the peak throughout.")
    ] = "triangular",
    precision: Annotated[Precision, typer.Option(help="Of the decoder and classifier.")] = "float32",
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Between checkpoints.")] = 60.0,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Train on clean images, score on the test images, and save the model.

    Stopped at any moment and started again with the same options, it goes on. For several processes, start it by
    `torchrun --nproc-per-node=2 -m neuroae train ...`.
    """
    refuse_unused(
        method,
        decoder_epochs,
        dictionary=dictionary,
        atoms=atoms,
        stride=stride,
        top_t=top_t,
        dropout_p=dropout_p,
        epsilon=epsilon,
        beta=beta,
        quantize=quantize,
    )
    where = choose_device(device)
    start = None if init is None else Start.load(init)
    given = None if method == "plain" else given_atoms(dictionary, start, atoms)
    preset = overridden(
        dataset,
        atoms=atoms if given is None else len(given),
        patch=None if given is None else given.shape[-1],
        stride=stride,
        top_t=top_t,
        dropout_p=dropout_p,
        epsilon=epsilon,
        beta=beta,
        quantize=quantize,
        epochs=epochs,
        decoder_epochs=decoder_epochs,
        learning_rate=learning_rate,
    )
    settings = TrainingSettings(
        epochs=preset.epochs,
        batch_size=batch_size,
        learning_rate=preset.learning_rate,
        schedule=schedule,
        precision=precision,
        augment=preset.augment,
        seed=seed,
    )
    images = load_dataset(dataset, "train", data_dir, download, image_size).limited(limit)
    if hold_out:
        images, validation = images.hold_out(hold_out, seed)
        scored = validation
    else:
        validation, scored = None, load_dataset(dataset, "test", data_dir, download, image_size)
    asked = identify(method, dataset, preset, images, settings, given, start)
    to_learn = method != "plain" and given is None
    with distributed.group(where):
        if (output / CONFIG).exists():
            show_finished(output, asked)
            return
        # Made before the folder is, so that settings that do not fit leave nothing behind.
        model = make_model(preset, images, any_atoms(preset, images) if to_learn else given, seed)
        require_fit(model, images)
        if start is not None:
            start.copy_into(model)
            start.compare_classes(images)
        with taken(output, asked):
            if to_learn:
                given = learned_atoms(preset, images, output, seed)
                model = make_model(preset, images, given, seed)
            identity = identify(method, dataset, preset, images, settings, given, start)
            run = Run(output, checkpoint_seconds, identity, TrainingRecord(output).update, held=True)
            history = learn(method, model.to(where), preset, images, settings, run, validation)
            if distributed.is_first():
                finish(output, model, images.classes, scored, history, identity, start, seed)


def refuse_unused(method: Method, decoder_epochs: int | None, **encoder: object) -> None:
    """Refuses options, those that are not None, of what the method does not train: they would change nothing."""
    if decoder_epochs is not None and method != "unsupervised":
        raise ValueError(f"--decoder-epochs is of an unsupervised training, and --method is {method}")
    for name, value in encoder.items():
        if value is not None and method == "plain":
            raise ValueError(
                f"--{name.replace('_', '-')} is of a defense, and --method is plain, the classifier alone"
            )


def make_model(preset: Preset, data: ImageSet, atoms: Tensor | None, seed: int) -> nn.Module:
    """A defense on the atoms, or the classifier alone without them."""
    classes = len(data.classes)
    height, width = data.images.shape[2:]
    check_sides(height, width)
    if atoms is None:
        return make_classifier(preset, classes, seed)
    return make_defense(preset, atoms, (height, width), classes, seed)


@torch.no_grad()
def require_fit(model: nn.Module, data: ImageSet) -> None:
    """Shows the model an image, so that its own errors come before anything is written."""
    with drawing_from(0):
        model.eval()(data.take(slice(1)).pixels())


def identify(
    method: Method,
    dataset: str,
    preset: Preset,
    images: ImageSet,
    settings: TrainingSettings,
    atoms: Tensor | None,
    start: Start | None,
) -> dict[str, Any]:
    """What makes two runs the same, in the form in which JSON gives it back; atoms where they are known."""
    identity = {
        "method": method,
        "dataset": dataset,
        "images": len(images),
        "fingerprint": images.fingerprint(),
        "preset": asdict(preset),
        "training": asdict(settings),
    }
    if atoms is not None:
        identity["dictionary"] = dictionary_digest(atoms)
    if start is not None:
        identity["init"] = fingerprint(start.model)
    stored: dict[str, Any] = json.loads(json.dumps(identity))
    return stored


def learn(
    method: Method,
    model: nn.Module,
    preset: Preset,
    data: ImageSet,
    settings: TrainingSettings,
    run: Run,
    validation: ImageSet | None,
) -> list[Epoch]:
    if not isinstance(model, Defense):
        return train_plain(model, data, settings, run, validation)
    if method == "unsupervised":
        return train_unsupervised(model, data, settings, preset.decoder_epochs, run, validation)
    return train_supervised(model, data, settings, run, validation)


def finish(
    output: Path,
    model: nn.Module,
    classes: Sequence[str],
    scored: ImageSet,
    history: list[Epoch],
    identity: dict[str, Any],
    start: Start | None,
    seed: int,
) -> None:
    """Scores the model, saves it with all that is known of it, and prints the score."""
    ensemble = 10 if isinstance(model, Defense) else 1
    results = run_evaluation(Evaluation(model, scored, [], Scoring(ensemble, seed), name=output.name))
    row = Row.of(output.name, results)
    first, *later = load_run(output)["versions"]
    notes = {
        "run": identity,
        "classes": list(classes),
        "scores": [{"data": scored.name, "ensemble": ensemble, **asdict(row)}],
        "seconds": sum(identity["images"] / epoch.images_per_second for epoch in history),
        "epochs": [asdict(epoch) for epoch in history],
        "versions": first,
    }
    if later:
        notes["continued_with"] = later
    if start is not None:
        notes["earlier"] = start.runs()
    save_pretrained(model, output, notes)
    print(markdown_table([row]))


def show_finished(output: Path, asked: dict[str, Any]) -> None:
    """Says that there is nothing left to do; an error where the folder holds another run's model."""
    _, notes = load_pretrained(output)
    if (output / RUN).exists():
        require_asked(output, asked)
    else:
        require_settings(output / CONFIG, notes.get("run", {}), asked)
    if distributed.is_first():
        print(f"{output} is trained already{last_score(output / CONFIG, notes)}")


def last_score(path: Path, notes: dict[str, Any]) -> str:
    """In words; "" where there is none, as whoever saves a model in the place of this one may know no score of it.

    Raises:
        ValueError: the notes of the configuration at the path are of another form.
    """
    try:
        scored = [
            f": {score['accuracy']:.1%} of {score['images']:,} images of {score['data']}"
            for score in notes.get("scores", [])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has scores in its notes that are none: {error!r}") from error
    return "".join(scored[:1])
