"""``neuroae attack``: attack a model, or score adversarial images from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from ..attacks import Average, LossName
from ..attacks.balls import Norm
from ..attacks.settings import Schedule
from ..attacks.suite import SuiteName
from ..data import DATASETS, ImageSet, load_dataset, own_dataset
from ..evaluation import MODES, Evaluation, Scoring, attacks_from, run_evaluation, suite_attack
from ..evaluation.attack import Perturbation, Variant, Widths, check_modes
from ..evaluation.models import for_any_batch, is_random, load_model, require_fixable
from ..evaluation.own_attack import load_own_attack
from ..evaluation.ready_made import load_ready_made
from ..models import pretrained_classes, shipped_names
from ..models.presets import PRESETS, Preset
from ..nn.defense import Defense
from ..reports.report import PAGE, write_report
from ..utils import distributed
from ..utils.contexts import Precision
from ..utils.devices import choose_device
from ..utils.functions import is_function
from .methods import GRADIENT_FREE, TITLES, Budget, name_by_settings
from .options import DataDir, Device, Download, ImageSize, Limit, Seed, parse_folder, parse_fraction, preset_option


def attack(
    model: Annotated[
        str,
        typer.Argument(
            help="The model to attack: a folder that `neuroae train` wrote, the name of a shipped model, or "
            "MODULE:FUNCTION, a function of yours that returns a torch.nn.Module from images in [0, 1] to logits."
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help=f"The data set whose images are attacked: {', '.join(DATASETS)}, or MODULE:FUNCTION, a function of "
            "yours that returns images in [0, 1] and labels."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            parser=parse_folder,
            metavar="PATH",
            help="Folder for records, images and the report. A stopped evaluation is resumed from it.",
        ),
    ],
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    hold_out: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of training images to attack instead of the test images: those that `neuroae train` held "
            "out with the same --hold-out, --seed and --limit. A smaller number attacks some of them.",
        ),
    ] = 0,
    limit: Limit = None,
    suite: Annotated[
        SuiteName | None,
        typer.Option(
            help="Cascade of attacks that suits any model: standard, or quick for a tenth of its cost.",
            show_default="standard, unless an option of single attacks is given",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Attack method: {', '.join(TITLES)}, or MODULE:FUNCTION, a function of yours from model, images, "
            "labels and epsilon to perturbed images. Repeat for several.",
            show_default="pgd; none with --images",
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help=f"How gradients pass a defense: {', '.join(MODES)}. Repeat for several.", show_default="all"
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Another model, given like MODEL, to craft transfer attacks on. Repeat for several.",
            show_default="none",
        ),
    ] = None,
    variant: Annotated[
        Variant | None,
        typer.Option(
            help="Attack a variant of the defense: the ensemble as deployed, in which each realization is an ensemble "
            "of E members, or the mean field, with dropout replaced by its expectation. Classifiers are not changed.",
            show_default="the defense itself, averaged over --realizations",
        ),
    ] = None,
    loss: Annotated[
        LossName | None,
        typer.Option(help="Loss that attacks maximize.", show_default="cross-entropy; --mode selection: margin"),
    ] = None,
    targeted: Annotated[
        bool,
        typer.Option("--targeted", help="Aim at the wrong class that MODEL finds likeliest in the clean image."),
    ] = False,
    norm: Annotated[
        Norm, typer.Option(help="Norm of the perturbation. l2 needs --epsilon, and --attack pgd --step-size too.")
    ] = "linf",
    epsilon: Annotated[
        list[float] | None,
        preset_option(
            "epsilon",
            "Largest perturbation, for pixels in [0, 1], as 0.03 or 8/255. Repeat for an attack with each value.",
            parser=parse_fraction,
            metavar="NUMBER",
        ),
    ] = None,
    step_size: Annotated[
        float | None,
        preset_option("step_size", "Size of a PGD step. The default grows in proportion to --epsilon.", min=0),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Number of gradient steps, N_S. Repeat for an attack with each value.",
            show_default="pgd: 20; apgd: 100",
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=1, help="Number of restarts, N_R. The first starts at the clean image.")
    ] = 1,
    random_start: Annotated[
        bool, typer.Option("--random-start", help="Start the first restart at a random point of the ball, too.")
    ] = False,
    realizations: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Realizations averaged in a gradient or a query, N_E; always 1 on a deterministic source. Repeat for "
            "an attack with each value.",
            show_default="40; --mode selection: 2; square: 10",
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Share of the last PGD step's direction that is added to the next.",
            show_default="0; --mode selection: 0.75",
        ),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(help="PGD's step size: constant, or falling along a cosine.", show_default="constant"),
    ] = None,
    selection_width: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="For --mode selection: how far from the T-th magnitude an atom still counts.",
            show_default="the model's: a tenth of epsilon times the mean l1 norm of its atoms",
        ),
    ] = None,
    clamp_width: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="For --mode selection: the distance outside [0, 1] at which the decoder's gradient falls to half.",
            show_default="the model's: 10",
        ),
    ] = None,
    average: Annotated[
        Average,
        typer.Option(help="Average of a step's gradients: each divided by its l2 norm, unchanged, or of their signs."),
    ] = "normalized",
    queries: Annotated[int, typer.Option(min=1, help="Number of squares that --attack square tries.")] = 1000,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of draws that vote on an image, E.",
            show_default="10; 1 if the model is deterministic",
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Precision of gradients in decoder and classifier. Square and scoring are in float32."),
    ] = "float32",
    block: Annotated[int, typer.Option(min=1, help="Number of images in a batch.")] = 64,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Adversarial images to score: a safetensors file with `images`, and with `ids` unless they "
            "are all of the attacked images in order. They must be within --epsilon, if it is given.",
            show_default="none",
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Fix the masks of each image, for debugging. The results say nothing about the random model.",
        ),
    ] = False,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Attack test images and report the remaining accuracy.

    Without options of single attacks it runs the standard suite: a probe of the model, and a cascade of attacks that
    suits what it finds.

    The same command resumes a run that was stopped at any moment.

    To share the work among processes, start it with `torchrun --nproc-per-node=2 -m neuroae attack ...`.
    """
    torch_device = choose_device(device)
    single = {
        name: value
        for name, value in {
            "attack": attack,
            "mode": mode,
            "variant": variant,
            "loss": loss,
            "targeted": targeted or None,
            "step-size": step_size,
            "steps": steps,
            "realizations": realizations,
            "momentum": momentum,
            "schedule": schedule,
            "images": images,
            "deterministic": deterministic or None,
            "random-start": random_start or None,
            "restarts": None if restarts == 1 else restarts,
        }.items()
        if value is not None
    }
    if suite is not None and single:
        raise ValueError(f"suite is {suite!r}, expected no option of single attacks beside it: --{next(iter(single))}")
    chosen_suite = suite or ("" if single else "standard")
    named = [] if chosen_suite else attack or ([] if images else ["pgd"])
    methods = [name for name in named if not is_function(name)]
    functions = [name for name in named if is_function(name)]
    modes = mode or list(MODES)
    check_modes(modes)
    if norm == "l2" and methods and (not epsilon or (step_size is None and "pgd" in methods)):
        raise ValueError("norm is 'l2', which has no usual budget: give epsilon and step_size too")
    if images and epsilon and len(epsilon) > 1:
        raise ValueError(f"epsilon has {len(epsilon)} values, expected one with images, which must be within it")
    if chosen_suite and norm == "l2" and not epsilon:
        raise ValueError("norm is 'l2', which has no usual budget: give epsilon too")
    preset = preset_of(dataset)
    if is_function(dataset) and not epsilon:
        raise ValueError(f"dataset is {dataset!r}, which has no usual budget: give epsilon too")
    budgets = [
        Budget(
            epsilon=size,
            step_size=preset.step_at(size) if step_size is None else step_size,
            steps=count,
            restarts=restarts,
            random_start=random_start,
            realizations=draws,
            average=average,
            loss=loss,
            norm=norm,
            queries=queries,
            momentum=momentum,
            schedule=schedule,
        )
        for size, count, draws in product(epsilon or [preset.epsilon], steps or (None,), realizations or (None,))
    ]
    # By the sources' names in tables. The attacked model is a source too, with an empty name.
    paths = {"": model} | unique_names(source or [])
    sources = {name: load_model(path).to(torch_device) for name, path in paths.items()}
    data = load_images(dataset, hold_out, data_dir, download, image_size, limit, seed)
    data = relabel(data, load_class_names(paths))
    sources = {name: for_any_batch(name or model, network, data, block) for name, network in sources.items()}
    random = {name: draws_freely(name or model, network, data, deterministic) for name, network in sources.items()}
    attacks: list[Perturbation] = []
    for (name, network), method in product(sources.items(), methods):
        if name and method in GRADIENT_FREE:  # the source would not matter
            continue
        crafted = [
            attack
            for budget, gradient_mode in product(budgets, choose_modes(network, method, modes))
            for attack in attacks_from(
                network,
                budget.settings(method, gradient_mode),
                [gradient_mode] if gradient_mode else [],
                precision,
                name,
                choose_variant(variant, network, sources),
                random[name],
                TITLES[method],
                random[""],
                Widths(selection_width, clamp_width),
            )
        ]
        if targeted:
            crafted = [replace(attack, name=f"{attack.name}, targeted", targeted=True) for attack in crafted]
        attacks += name_by_settings(crafted, epsilon=epsilon, steps=steps, realizations=realizations)
    for function, size in product(functions, epsilon or [preset.epsilon]):
        several = f", epsilon {size:g}" if epsilon and len(epsilon) > 1 else ""
        own = load_own_attack(function, size, norm)
        attacks.append(replace(own, name=own.name + several))
    if chosen_suite:
        others = {name: each for name, each in sources.items() if name} or shipped_sources(
            dataset, model, torch_device
        )
        plan = partial(suite_attack, sources[""], data, norm=norm, suite=chosen_suite, sources=others)
        attacks += [plan(epsilon=size, seed=seed, folder=output) for size in epsilon or [preset.epsilon]]
    if images:
        attacks.append(load_ready_made(images, data, norm, epsilon[0] if epsilon else None))
    scoring = Scoring(ensemble or (10 if random[""] else 1), seed, deterministic)
    evaluation = Evaluation(sources[""], data, attacks, scoring, block, Path(model).absolute().name)
    with distributed.group(torch_device):
        first = distributed.is_first()
        run_evaluation(evaluation, output)
    if first:
        print(write_report(output))
        print(f"\npage: {output / PAGE}")


def preset_of(dataset: str) -> Preset:
    """Returns the settings that suit a data set; those of CIFAR-10 for a user's function, which has none of its own.

    Raises:
        ValueError: There is no such data set.
    """
    if is_function(dataset):
        return PRESETS["cifar10"]
    if dataset not in PRESETS:
        raise ValueError(f"dataset is {dataset!r}, expected one of {', '.join(PRESETS)}, or MODULE:FUNCTION")
    return PRESETS[dataset]


def shipped_sources(dataset: str, model: str, device: torch.device) -> dict[str, nn.Module]:
    """Returns the classifier that ships for a data set, from which suites transfer attacks, unless it is the model."""
    name = f"{dataset}-undefended"
    return {name: load_model(name).to(device)} if name in shipped_names() and model != name else {}


def load_images(
    dataset: str,
    hold_out: int,
    data_dir: Path | None,
    download: bool,
    image_size: int | None,
    limit: int | None,
    seed: int,
) -> ImageSet:
    """Returns the test images, or the training images that a training held out.

    Raises:
        ValueError: The data set is a user's function, and an option is given that it does not have.
    """
    if is_function(dataset):
        unfit = {"data-dir": data_dir, "download": download, "image-size": image_size, "hold-out": hold_out}
        given = [name for name, value in unfit.items() if value]
        if given:
            raise ValueError(f"dataset is {dataset!r}, which takes no --{given[0]}")
        return own_dataset(dataset).limited(limit)
    data = load_dataset(dataset, "train" if hold_out else "test", data_dir, download, image_size).limited(limit)
    return data.hold_out(hold_out, seed)[1] if hold_out else data


def choose_modes(source: nn.Module, method: str, modes: Sequence[str]) -> Sequence[str]:
    """Returns the modes that make different attacks; only "" on a classifier, and for a method without gradients."""
    return modes if isinstance(source, Defense) and method not in GRADIENT_FREE else [""]


def choose_variant(variant: Variant | None, source: nn.Module, sources: Mapping[str, nn.Module]) -> Variant | None:
    """Returns the variant for a source; None for a classifier beside a defense, for which the variant is meant."""
    has_defense = any(isinstance(network, Defense) for network in sources.values())
    return None if has_defense and not isinstance(source, Defense) else variant


def unique_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns the paths by their last parts, or by themselves where these repeat."""
    names = [Path(path).absolute().name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))


def load_class_names(models: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the class names of those saved models that have them, by the model's path."""
    paths = {path for path in models.values() if not is_function(path)}
    classes = {path: pretrained_classes(path) for path in sorted(paths)}
    return {path: names for path, names in classes.items() if names}


def relabel(data: ImageSet, classes: Mapping[str, tuple[str, ...]]) -> ImageSet:
    """Returns the images with labels that are positions in the models' class names.

    Raises:
        ValueError: Two models have different classes, or a model does not know a class of the images.
    """
    if not classes:
        return data
    first, *remaining = classes
    for path in remaining:
        if classes[path] != classes[first]:
            names, expected = ", ".join(classes[path]), ", ".join(classes[first])
            raise ValueError(f"{path} has the classes {names}, expected {expected} as {first} has")
    try:
        return data.in_classes(classes[first])
    except ValueError as error:
        raise ValueError(f"{error}, which {first} was trained on") from error


def draws_freely(name: str, model: nn.Module, data: ImageSet, deterministic: bool) -> bool:
    """Returns whether a model is random and its masks are not to be fixed. It runs the model on images."""
    random = is_random(model, data)
    if deterministic and random:
        require_fixable(name, model)
    return random and not deterministic
