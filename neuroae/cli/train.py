"""``neuroae train``: train a defense, or the classifier alone."""

import json
from dataclasses import asdict, dataclass, replace
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
from ..models.presets import ClassifierName, FrontEndName, Preset, make_defense, make_undefended
from ..nn.classifiers import DropoutResNet32, check_sides
from ..nn.defense import Defense
from ..reports import Row, TrainingRecord, markdown_table
from ..training import (
    Epoch,
    Run,
    TrainingSettings,
    train_adversarial,
    train_plain,
    train_supervised,
    train_unsupervised,
)
from ..training.adversarial import RECIPES, AdversarialMethod, Recipe
from ..training.settings import Schedule
from ..utils import distributed
from ..utils.contexts import Precision, drawing_from
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
from .runs import (
    RUN,
    Start,
    claimed_for_training,
    load_initial_atoms,
    load_or_learn_atoms,
    load_run,
    make_placeholder_atoms,
    require_identity,
    require_run,
)

Method = Literal["supervised", "unsupervised", "plain", AdversarialMethod]
WITH_DEFENSE = ("supervised", "unsupervised")


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


@dataclass(frozen=True, eq=False)
class Plan:
    """A training as the options describe it.

    Attributes:
        method: The training method.
        dataset: The name of the data set.
        preset: The data set's preset with the user's options.
        settings: Optimizer, schedule and seed.
        images: The training images.
        validation: Training images that are held out, and scored after every epoch; None if none are held out.
        scoring_images: The images that the model is scored on at the end: the held-out or else the test images.
        start: The saved model to start from, or None.
        atoms: (L, C, n, n), or None if they are to be learned, or if the method trains no defense.
    """

    method: Method
    dataset: str
    preset: Preset
    settings: TrainingSettings
    images: ImageSet
    validation: ImageSet | None
    scoring_images: ImageSet
    start: Start | None
    atoms: Tensor | None

    def learns_atoms(self) -> bool:
        """Returns whether the atoms are still to be learned."""
        return self.method in WITH_DEFENSE and self.atoms is None

    def identity(self) -> dict[str, Any]:
        """Returns the values by which trainings differ, as they come back from JSON; "dictionary" only with atoms."""
        identity = {
            "method": self.method,
            "dataset": self.dataset,
            "images": len(self.images),
            "fingerprint": self.images.fingerprint(),
            "preset": self.preset.identity(),
            "training": asdict(self.settings),
        }
        if self.atoms is not None:
            identity["dictionary"] = dictionary_digest(self.atoms)
        if self.start is not None:
            identity["init"] = fingerprint(self.start.model)
        json_values: dict[str, Any] = json.loads(json.dumps(identity))
        return json_values


def show_finished(output: Path, identity: dict[str, Any]) -> None:
    """Prints that the training is complete, and the model's score.

    Raises:
        ValueError: The folder holds the model of another training.
    """
    _, notes = load_pretrained(output)
    if (output / RUN).exists():
        require_run(output, identity)
    else:
        require_identity(output / CONFIG, notes.get("run", {}), identity)
    if distributed.is_first():
        print(f"{output} is trained already{describe_score(output / CONFIG, notes)}")


def describe_score(path: Path, notes: dict[str, Any]) -> str:
    """Returns the model's score in words; "" if its notes have none, as when another program saved the model.

    Raises:
        ValueError: The notes hold scores of another form; the message names the path.
    """
    try:
        texts = [
            f": {score['accuracy']:.1%} of {score['images']:,} images of {score['data']}"
            for score in notes.get("scores", [])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds scores that cannot be read: {error!r}") from error
    return "".join(texts[:1])


def run_plan(plan: Plan, output: Path, checkpoint_seconds: float, device: torch.device) -> None:
    """Trains the model, scores it and saves it.

    Args:
        plan: The training.
        output: The folder of the training.
        checkpoint_seconds: The time between two checkpoints.
        device: The device to compute on.
    """
    # Before the folder is created, so that unusable settings leave nothing behind.
    model = try_model(plan)
    with claimed_for_training(output, plan.identity()):
        if plan.learns_atoms():
            plan = replace(plan, atoms=load_or_learn_atoms(plan.preset, plan.images, output, plan.settings.seed))
            model = make_model(plan, plan.atoms)
        identity = plan.identity()
        run = Run(output, checkpoint_seconds, identity, TrainingRecord(output).update, held=True)
        history = learn(plan, model.to(device), run)
        if distributed.is_first():
            finish(plan, model, history, identity, output)


def try_model(plan: Plan) -> nn.Module:
    """Returns a model of the plan, with placeholders for atoms that are still to be learned.

    The model classifies an image, so that errors in the settings arise before anything is written.
    """
    model = make_model(plan, make_placeholder_atoms(plan.preset, plan.images) if plan.learns_atoms() else plan.atoms)
    with torch.no_grad(), drawing_from(0):
        model.eval()(plan.images.take(slice(1)).pixels())
    if plan.start is not None:
        plan.start.copy_into(model)
        plan.start.compare_classes(plan.images)
    return model


def make_model(plan: Plan, atoms: Tensor | None) -> nn.Module:
    """Returns an untrained defense with these atoms, or the model without a defense where there are no atoms."""
    classes, seed = len(plan.images.classes), plan.settings.seed
    height, width = plan.images.images.shape[2:]
    if plan.preset.classifier != "efficientnet-b0":
        check_sides(height, width)
    if atoms is None:
        return make_undefended(plan.preset, (height, width), classes, seed)
    return make_defense(plan.preset, atoms, (height, width), classes, seed)


def learn(plan: Plan, model: nn.Module, run: Run) -> list[Epoch]:
    """Trains the model by the plan's method, and returns the epochs."""
    if plan.method in RECIPES:
        return train_adversarial(
            model,
            plan.images,
            plan.settings,
            plan.method,
            run,
            plan.validation,
            plan.preset.epsilon,
        )
    if not isinstance(model, Defense):
        return train_plain(model, plan.images, plan.settings, run, plan.validation)
    if plan.method == "unsupervised":
        epochs = plan.preset.decoder_epochs
        return train_unsupervised(model, plan.images, plan.settings, epochs, run, plan.validation)
    return train_supervised(model, plan.images, plan.settings, run, plan.validation)


def finish(plan: Plan, model: nn.Module, history: list[Epoch], identity: dict[str, Any], output: Path) -> None:
    """Scores the model, saves it with notes on its training, and prints the score."""
    scoring_images, seed = plan.scoring_images, plan.settings.seed
    ensemble = 10 if isinstance(model, Defense | DropoutResNet32) else 1
    results = run_evaluation(Evaluation(model, scoring_images, [], Scoring(ensemble, seed), name=output.name))
    row = Row.of(output.name, results)
    first, *later = load_run(output)["versions"]
    notes = {
        "run": identity,
        "classes": list(plan.images.classes),
        "scores": [{"data": scoring_images.name, "ensemble": ensemble, **asdict(row)}],
        "seconds": sum(identity["images"] / epoch.images_per_second for epoch in history),
        "epochs": [asdict(epoch) for epoch in history],
        "versions": first,
    }
    if later:
        notes["continued_with"] = later
    if plan.start is not None:
        notes["earlier"] = plan.start.runs()
    save_pretrained(model, output, notes)
    print(markdown_table([row]))
