"""``neuroae train``: train a defense, or the classifier alone."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from torch import Tensor, nn

from ..contexts import Precision
from ..data import DatasetName, ImageSet, load_dataset
from ..dictionary import load_dictionary
from ..evaluation import evaluate
from ..presets import Preset, make_classifier, make_defense, make_dictionary
from ..pretrained import save_pretrained
from ..reports import Row, markdown_table
from ..training import Epoch, TrainingSettings, train_plain, train_supervised, train_unsupervised
from .options import (
    Atoms,
    DataDir,
    Epsilon,
    Limit,
    Seed,
    overridden,
    preset_option,
)

Method = Literal["supervised", "unsupervised", "plain"]


def train(
    dataset: Annotated[DatasetName, typer.Option(help="What to train on.")],
    output: Annotated[Path, typer.Option(help="Folder to write: model.safetensors and config.json.")],
    method: Annotated[
        Method,
        typer.Option(
            help="Decoder and classifier together, the decoder by regression to the image and then the classifier, "
            "or the classifier alone."
        ),
    ] = "supervised",
    data_dir: DataDir = None,
    limit: Limit = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="Atoms to use, from `neuroae dictionary`.", show_default="learn them")
    ] = None,
    atoms: Atoms = None,
    stride: Annotated[int | None, preset_option("stride", "S, pixels between patches.", min=1)] = None,
    top_t: Annotated[int | None, preset_option("top_t", "T, coefficients kept of a patch.", min=1)] = None,
    dropout_p: Annotated[float | None, preset_option("dropout_p", "p, how often each is dropped.", min=0)] = None,
    epsilon: Epsilon = None,
    beta: Annotated[float | None, preset_option("beta", "Width of the dead zone, in epsilons.", min=0)] = None,
    quantize: Annotated[bool, typer.Option(help="Reduce coefficients to their signs.")] = True,
    epochs: Annotated[int | None, preset_option("epochs", "Passes over the images.", min=1)] = None,
    decoder_epochs: Annotated[
        int | None, preset_option("decoder_epochs", "Passes for an unsupervised decoder.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 64,
    learning_rate: Annotated[float | None, preset_option("learning_rate", "At the peak.", min=0)] = None,
    precision: Annotated[Precision, typer.Option(help="Of the decoder and classifier.")] = "float32",
    seed: Seed = 0,
) -> None:
    """Train on clean images, score on the test images, and save the model."""
    images = load_dataset(dataset, "train", data_dir).take(slice(limit))
    test = load_dataset(dataset, "test", data_dir)
    preset = overridden(
        dataset,
        atoms=atoms,
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
        precision=precision,
        augment=preset.augment,
        seed=seed,
    )
    learned = load_dictionary(dictionary) if dictionary else None
    model, history = trained(method, preset, learned, images, settings)
    clean = evaluate(model, test, ensemble=1 if method == "plain" else 10, seed=seed, title=output.name)
    row = Row.of(output.name, clean)
    notes = {
        "method": method,
        "dataset": dataset,
        "images": len(images),
        "training": asdict(settings),
        "epochs": [asdict(epoch) for epoch in history],
        "test": asdict(row),
    }
    save_pretrained(model, output, notes)
    print(markdown_table([row]))


def trained(
    method: Method, preset: Preset, atoms: Tensor | None, data: ImageSet, settings: TrainingSettings
) -> tuple[nn.Module, list[Epoch]]:
    """A model trained by the method, on a dictionary that is learned here where none is given."""
    classes = len(data.classes)
    if method == "plain":
        classifier = make_classifier(preset, classes, settings.seed)
        return classifier, train_plain(classifier, data, settings)
    if atoms is None:
        atoms = make_dictionary(preset, data, settings.seed)
    height, width = data.images.shape[2:]
    model = make_defense(preset, atoms, (height, width), classes, settings.seed)
    if method == "unsupervised":
        return model, train_unsupervised(model, data, settings, preset.decoder_epochs)
    return model, train_supervised(model, data, settings)
