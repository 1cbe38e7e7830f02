"""``neuroae attack``: attack a model, or score adversarial images that came from elsewhere."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from ..attacks import Average, LossName
from ..attacks.balls import Norm
from ..attacks.settings import Schedule
from ..data import DatasetName, ImageSet, load_dataset
from ..evaluation import MODES, Evaluation, Scoring, attacks_from, run_evaluation
from ..evaluation.attack import Perturbation, Variant, Widths, check_modes
from ..evaluation.models import for_any_batch, is_function, is_random, load_model, require_fixable
from ..evaluation.ready_made import load_ready_made
from ..models import pretrained_classes
from ..models.presets import PRESETS
from ..nn.defense import Defense
from ..reports.page import PAGE, write_report
from ..reports.report import probe_evaluation
from ..utils import distributed
from ..utils.contexts import Precision
from ..utils.devices import choose_device
from .methods import TITLES, WITHOUT_GRADIENTS, Budget, named_by_settings, repeated
from .options import DataDir, Device, Download, ImageSize, Limit, Seed, folder, preset_option


def attack(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder that `neuroae train` wrote, name of a shipped model, or MODULE:FUNCTION of your own, "
            "a function that returns a torch.nn.Module from images in [0, 1] to logits."
        ),
    ],
    dataset: Annotated[DatasetName, typer.Option(help="Whose images to attack.")],
    output: Annotated[
        Path,
        typer.Option(
            parser=folder,
            metavar="PATH",
            help="Folder for records and images. An evaluation that was stopped goes on from there.",
        ),
    ],
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    hold_out: Annotated[
        int,
        typer.Option(
            min=0,
            help="Attack so many training images in the place of test images: those that `neuroae train` with this "
            "--hold-out, --seed and --limit did not learn from, or some of them for a smaller number.",
        ),
    ] = 0,
    limit: Limit = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(TITLES)}; repeat for several.", show_default="pgd; none with --images"),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help=f"How gradients get through a defense: {', '.join(MODES)}; repeat for several.", show_default="all"
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Another model to transfer attacks from, besides MODEL, and named as it is; repeat for several."
        ),
    ] = None,
    variant: Annotated[
        Variant | None,
        typer.Option(
            help="Craft on the ensemble as deployed, of which a realization is all E members, on the mean field "
            "(dropout replaced by its expectation), or on fixed masks. Sources that are classifiers stay as they are.",
            show_default="single realizations, of which --realizations are averaged",
        ),
    ] = None,
    loss: Annotated[
        LossName | None, typer.Option(help="That is raised.", show_default="cross-entropy; --mode selection: margin")
    ] = None,
    norm: Annotated[Norm, typer.Option(help="Of the perturbation; l2 needs --epsilon, and pgd --step-size.")] = "linf",
    epsilon: Annotated[
        list[float] | None,
        preset_option("epsilon", "Budget for pixels in [0, 1]; repeat for an attack with each.", min=0),
    ] = None,
    step_size: Annotated[
        float | None, preset_option("step_size", "Of each step of PGD; the default grows with --epsilon.", min=0)
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="N_S, gradient steps; repeat for an attack with each.", show_default="pgd: 20; apgd: 100"
        ),
    ] = None,
    restarts: Annotated[int, typer.Option(min=1, help="N_R; the first starts at the image.")] = 1,
    random_start: Annotated[
        bool, typer.Option("--random-start", help="The first restart starts at a random point of the ball too.")
    ] = False,
    realizations: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="N_E, draws averaged in a gradient or a query; 1 where the source draws nothing. Repeat for an "
            "attack with each.",
            show_default="40; --mode selection: 2; square: 10",
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Of PGD: how much of the direction of the last step goes into the next.",
            show_default="0; --mode selection: 0.75",
        ),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(help="Of PGD's step size, constant or falling along a cosine.", show_default="constant"),
    ] = None,
    selection_width: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Of --mode selection: how far from the T-th magnitude an atom counts.",
            show_default="the model's, a tenth of epsilon times the mean l1 norm of its atoms",
        ),
    ] = None,
    clamp_width: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Of --mode selection: how far outside of [0, 1] the decoder's gradient falls to a half.",
            show_default="the model's, 10",
        ),
    ] = None,
    average: Annotated[
        Average, typer.Option(help="Of gradients divided by their l2 norms, as they are, or of their signs.")
    ] = "normalized",
    queries: Annotated[int, typer.Option(min=1, help="Of Square, squares that are tried.")] = 1000,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=1, help="E, draws that vote on an image.", show_default="10; 1 where the model draws nothing"
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Of decoder and classifier where gradients are taken; Square and scoring are in float32."),
    ] = "float32",
    block: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 64,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Adversarial images to score: safetensors with `images`, and `ids` or as many as are attacked. They "
            "are held to --epsilon if it is given, which then is one."
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
    """Attack test images, and print and save what is left of the accuracy.

    Stopped at any moment and started again with the same options, it goes on. For several processes, start it by
    `torchrun --nproc-per-node=2 -m neuroae attack ...`.
    """
    where = choose_device(device)
    methods = attack or ([] if images else ["pgd"])
    modes = mode or list(MODES)
    check_modes(modes)
    if norm == "l2" and methods and (not epsilon or (step_size is None and "pgd" in methods)):
        raise ValueError("norm is 'l2', which has no usual budget: give epsilon and step_size too")
    if images and epsilon and len(epsilon) > 1:
        raise ValueError(f"epsilon has {len(epsilon)} values, expected one with images, which are held to it")
    preset = PRESETS[dataset]

    def budget(size: float, count: int | None, averaged: int | None) -> Budget:
        step = preset.step_at(size) if step_size is None else step_size
        rest = (average, loss, norm, queries, momentum, schedule)
        return Budget(size, step, count, restarts, random_start, averaged, *rest)

    budgets = [
        budget(*chosen) for chosen in product(epsilon or [preset.epsilon], steps or (None,), realizations or (None,))
    ]
    widths = Widths(selection_width, clamp_width)
    swept = repeated(epsilon=epsilon, steps=steps, realizations=realizations)
    # By the names that tables give them; the attacked model's own attacks need none.
    sources = {"": load_model(model).to(where)}
    sources |= {name: load_model(path).to(where) for name, path in named(source or []).items()}
    data = load_dataset(dataset, "train" if hold_out else "test", data_dir, download, image_size)
    data = data.limited(limit)
    if hold_out:
        _, data = data.hold_out(hold_out, seed)
    data = in_known_classes(data, known_classes({"": model} | named(source or [])))
    sources = {name: for_any_batch(name or model, each, data, block) for name, each in sources.items()}
    attacked = sources[""]
    random = {name: draws(name or model, each, data, deterministic) for name, each in sources.items()}
    attacks: list[Perturbation] = []
    for (name, each), method in product(sources.items(), methods):
        crafted = [
            attack
            for budget, own in product(budgets, modes_of(each, method, modes))
            if not (name and method in WITHOUT_GRADIENTS)  # a search has nothing to transfer
            for attack in attacks_from(
                each,
                budget.settings(method, own),
                [own] if own else [],
                precision,
                name,
                of_defense(variant, each, sources),
                random[name],
                TITLES[method],
                random[""],
                widths,
            )
        ]
        attacks += named_by_settings(crafted, swept) if swept else crafted
    if images:
        attacks.append(load_ready_made(images, data, norm, epsilon[0] if epsilon else None))
    scoring = Scoring(ensemble or (10 if random[""] else 1), seed, deterministic)
    evaluation = Evaluation(attacked, data, attacks, scoring, block, Path(model).absolute().name)
    with distributed.group(where):
        first = distributed.is_first()
        run_evaluation(evaluation, output)
    if first:
        probe_evaluation(evaluation, output)
        print(write_report(output))
        print(f"\npage: {output / PAGE}")


def modes_of(source: nn.Module, method: str, modes: Sequence[str]) -> Sequence[str]:
    """The modes that make attacks of their own; "" where there is but one, on a classifier or without gradients."""
    return modes if isinstance(source, Defense) and method not in WITHOUT_GRADIENTS else [""]


def of_defense(variant: Variant | None, source: nn.Module, sources: Mapping[str, nn.Module]) -> Variant | None:
    """The variant; None for a classifier beside a defense, which has no such view of itself."""
    others = any(isinstance(each, Defense) for each in sources.values())
    return None if others and not isinstance(source, Defense) else variant


def named(paths: Sequence[str]) -> dict[str, str]:
    """Paths by their last parts; by themselves where these are not all different."""
    names = [Path(path).absolute().name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))


def known_classes(models: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The class names of saved models that have them, by the model's path."""
    saved = {path for path in models.values() if not is_function(path)}
    classes = {path: pretrained_classes(path) for path in sorted(saved)}
    return {path: names for path, names in classes.items() if names}


def in_known_classes(data: ImageSet, classes: Mapping[str, tuple[str, ...]]) -> ImageSet:
    """The images, their labels positions in the models' classes.

    Raises:
        ValueError: two models have other classes, or a model does not know a class of the images.
    """
    if not classes:
        return data
    first, *others = classes
    for path in others:
        if classes[path] != classes[first]:
            said, expected = ", ".join(classes[path]), ", ".join(classes[first])
            raise ValueError(f"{path} has the classes {said}, expected {expected} as {first} has")
    try:
        return data.in_classes(classes[first])
    except ValueError as error:
        raise ValueError(f"{error}, which {first} was trained on") from error


def draws(name: str, model: nn.Module, data: ImageSet, deterministic: bool) -> bool:
    """Whether a model draws anything that is left free; also the first time that it sees the images."""
    random = is_random(model, data)
    if deterministic and random:
        require_fixable(name, model)
    return random and not deterministic
