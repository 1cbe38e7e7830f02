"""``neuroae train``: train a defense, or the classifier alone."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import DatasetName, load_dataset
from ..models import CONFIG
from ..models.presets import ClassifierName, FrontEndName
from ..training import TrainingSettings
from ..training.adversarial import RECIPES, Recipe
from ..training.settings import Schedule
from ..utils import distributed
from ..utils.contexts import Precision
from ..utils.devices import choose_device
from .options import (
    DataDir,
    Device,
    Download,
    HoldOut,
    ImageSize,
    Limit,
    NumAtoms,
    Seed,
    override_preset,
    parse_folder,
    preset_option,
)
from .runs import Start, load_initial_atoms
from .training_plan import WITH_DEFENSE, Method, Plan, run_plan, show_finished


def published(field: str) -> str:
    """Returns what a help text says of the published schedules of adversarial training."""
    values = ", ".join(f"{method}: {getattr(recipe, field)}" for method, recipe in RECIPES.items())
    return f" ({values}, but not of the digits)"


def train(
    dataset: Annotated[DatasetName, typer.Option(help="Data set to train on.")],
    output: Annotated[
        Path,
        typer.Option(
            parser=parse_folder,
            metavar="PATH",
            help="Folder for the model, checkpoints and curves: a new one, or that of a stopped training, which is "
            "then resumed.",
        ),
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="supervised: decoder and classifier learn together. unsupervised: the decoder learns by regression "
            "to the image, then the classifier. plain: the classifier alone, without a defense. pgd-at, r-fgsm-at and "
            "trades: the classifier alone, on images attacked within --epsilon."
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
            help="Saved model whose weights and atoms to start from: a folder, or the name of a model that ships with "
            "neuroae.",
            show_default="weights drawn by the seed",
        ),
    ] = None,
    dictionary: Annotated[
        Path | None,
        typer.Option(
            help="File with the atoms to use, from `neuroae dictionary`.",
            show_default="the atoms of --init; without it they are learned",
        ),
    ] = None,
    num_atoms: NumAtoms = None,
    stride: Annotated[int | None, preset_option("stride", "Pixels from one patch to the next, S.", min=1)] = None,
    top_t: Annotated[int | None, preset_option("top_t", "Coefficients kept of each patch, T.", min=1)] = None,
    dropout_p: Annotated[
        float | None, preset_option("dropout_p", "Probability that a kept coefficient is dropped, p.", min=0)
    ] = None,
    epsilon: Annotated[
        float | None,
        preset_option(
            "epsilon",
            "L-infinity budget that the dead zone is designed for, or of adversarial training; pixels are in [0, 1].",
            min=0,
            max=1,
        ),
    ] = None,
    beta: Annotated[
        float | None, preset_option("beta", "Threshold of the dead zone, as a multiple of epsilon.", min=0)
    ] = None,
    quantize: Annotated[
        bool | None,
        typer.Option(help="Whether coefficients are reduced to their signs.", show_default="--quantize"),
    ] = None,
    resize: Annotated[
        bool | None,
        typer.Option(
            help="Whether the decoder is the published one for Imagenette, which resizes its first layer's output, "
            "instead of three transposed convolutions.",
            show_default="--no-resize",
        ),
    ] = None,
    classifier: Annotated[
        ClassifierName | None,
        preset_option(
            "classifier", "Architecture of the classifier. dropout-resnet32 is for training without a defense."
        ),
    ] = None,
    front_end: Annotated[
        FrontEndName | None,
        typer.Option(
            help="What is in front of a classifier without a defense (the paper's Table 5).", show_default="none"
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        preset_option("epochs", f"Passes over the training images{published('epochs')}.", min=1),
    ] = None,
    decoder_epochs: Annotated[
        int | None,
        preset_option("decoder_epochs", "Passes for the decoder, with --method unsupervised.", min=1),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a step, over all processes.")] = 64,
    learning_rate: Annotated[
        float | None,
        preset_option("learning_rate", f"Learning rate at its peak{published('learning_rate')}.", min=0),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(
            help="Learning rate. triangular: from 0 up to the peak and back to 0. constant: at the peak throughout. "
            "stepwise: at the peak, and a tenth of it over the last third.",
            show_default="triangular; trades: stepwise",
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of decoder and classifier.")] = "float32",
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between two checkpoints.")] = 60.0,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Train a model, score it on the test images, and save it.

    The same command resumes a training that was stopped. To train in several processes, start it with
    `torchrun --nproc-per-node=2 -m neuroae train ...`.
    """
    encoder: dict[str, Any] = {"stride": stride, "top_t": top_t, "dropout_p": dropout_p}
    encoder |= {"beta": beta, "quantize": quantize, "resize": resize}
    refuse_unused(
        method, decoder_epochs, epsilon, classifier, front_end, dictionary=dictionary, atoms=num_atoms, **encoder
    )
    torch_device = choose_device(device)
    start = None if init is None else Start.load(init)
    atoms = load_initial_atoms(dictionary, start, num_atoms) if method in WITH_DEFENSE else None
    recipe = recipe_of(method, dataset)
    if recipe is not None:
        epochs = recipe.epochs if epochs is None else epochs
        learning_rate = recipe.learning_rate if learning_rate is None else learning_rate
        schedule = recipe.schedule if schedule is None else schedule
    preset = override_preset(
        dataset,
        atoms=num_atoms if atoms is None else len(atoms),
        patch=None if atoms is None else atoms.shape[-1],
        **encoder,
        epsilon=epsilon,
        classifier=classifier,
        front_end=front_end,
        epochs=epochs,
        decoder_epochs=decoder_epochs,
        learning_rate=learning_rate,
    )
    settings = TrainingSettings(
        epochs=preset.epochs,
        batch_size=batch_size,
        learning_rate=preset.learning_rate,
        schedule="triangular" if schedule is None else schedule,
        precision=precision,
        augment=preset.augment,
        seed=seed,
    )
    images = load_dataset(dataset, "train", data_dir, download, image_size).limited(limit)
    if hold_out:
        images, validation = images.hold_out(hold_out, seed)
        scoring_images = validation
    else:
        validation, scoring_images = None, load_dataset(dataset, "test", data_dir, download, image_size)
    plan = Plan(method, dataset, preset, settings, images, validation, scoring_images, start, atoms)
    with distributed.group(torch_device):
        if (output / CONFIG).exists():
            show_finished(output, plan.identity())
        else:
            run_plan(plan, output, checkpoint_seconds, torch_device)


def recipe_of(method: Method, dataset: str) -> Recipe | None:
    """Returns the recipe whose published schedule is the default; None for other methods, and for the digits.

    The schedules are for photographs. The digits keep their short one.
    """
    return RECIPES[method] if method in RECIPES and dataset != "digits" else None


def refuse_unused(
    method: Method,
    decoder_epochs: int | None,
    epsilon: float | None,
    classifier: ClassifierName | None,
    front_end: FrontEndName | None,
    **defense_options: object,
) -> None:
    """Refuses options that the method would ignore.

    Args:
        method: The training method.
        decoder_epochs, epsilon, classifier, front_end: The options, None if the user did not set them.
        **defense_options: Other options of a defense by name, None if the user did not set them.

    Raises:
        ValueError: The method does not use an option that is set.
    """
    if decoder_epochs is not None and method != "unsupervised":
        raise ValueError(f"--decoder-epochs needs --method unsupervised, but --method is {method}")
    if method in WITH_DEFENSE:
        if classifier == "dropout-resnet32":
            raise ValueError(f"--classifier is {classifier}, which has no defense, but --method is {method}")
        if front_end not in (None, "none"):
            raise ValueError(f"--front-end is {front_end}, which replaces the defense, but --method is {method}")
        return
    if front_end not in (None, "none") and classifier == "dropout-resnet32":
        raise ValueError(f"--front-end is {front_end}, expected none with --classifier {classifier}")
    unused = defense_options | ({"epsilon": epsilon} if method == "plain" else {})
    for name, value in unused.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} needs a defense, but --method is {method}, the classifier alone")
