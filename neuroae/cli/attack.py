"""``neuroae attack``: attack a model, or score adversarial images from elsewhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from ..attacks import Average, LossName, PGDSettings, SquareSettings
from ..attacks.balls import Norm
from ..attacks.settings import Schedule
from ..attacks.stages import SuiteName
from ..data import DATASETS
from ..evaluation import MODES, Evaluation, Scoring, run_evaluation, suite_attack
from ..evaluation.attack import Perturbation, Variant, Widths, check_modes
from ..evaluation.models import for_any_batch, load_model
from ..evaluation.own_attack import load_own_attack
from ..evaluation.plan import even_block
from ..evaluation.ready_made import load_ready_made
from ..reports.report import PAGE, write_report
from ..utils import distributed
from ..utils.contexts import Precision
from ..utils.devices import choose_device
from ..utils.functions import is_function
from .attacked import draws_freely, load_class_names, load_images, preset_of, relabel, shipped_sources, unique_names
from .methods import TITLES, Budget, SingleAttacks, is_given, require_use
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
        int | None,
        typer.Option(
            min=1,
            help="Number of restarts, N_R. The first starts at the clean image.",
            show_default=f"{PGDSettings.restarts}",
        ),
    ] = None,
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
        Average | None,
        typer.Option(
            help="Average of a step's gradients: each divided by its l2 norm, unchanged, or of their signs.",
            show_default=PGDSettings.average,
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of squares that --attack square tries.", show_default=f"{SquareSettings.queries}"
        ),
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of draws that vote on an image, E.",
            show_default="10; 1 if the model is deterministic",
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of gradients in decoder and classifier. Square and scoring are in float32.",
            show_default="float32",
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(min=1, help="Number of images in a batch.", show_default="equal batches of at most 64"),
    ] = None,
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
    options = {
        "mode": mode,
        "variant": variant,
        "loss": loss,
        "targeted": targeted,
        "step_size": step_size,
        "steps": steps,
        "restarts": restarts,
        "random_start": random_start,
        "realizations": realizations,
        "momentum": momentum,
        "schedule": schedule,
        "selection_width": selection_width,
        "clamp_width": clamp_width,
        "average": average,
        "queries": queries,
        "precision": precision,
    }
    chosen_suite = choose_suite(suite, options | {"attack": attack, "images": images, "deterministic": deterministic})
    named = [] if chosen_suite else attack or ([] if images else ["pgd"])
    methods = [name for name in named if not is_function(name)]
    require_use({} if chosen_suite else options | {"source": source}, methods)
    modes = mode or list(MODES)
    check_modes(modes)
    preset = preset_of(dataset)
    require_budget(dataset, norm, named, epsilon, step_size, images)
    sizes = epsilon or [preset.epsilon]
    single = SingleAttacks(
        methods=methods,
        modes=modes,
        budgets=[
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
            for size, count, draws in product(sizes, steps or (None,), realizations or (None,))
        ],
        repeated={"epsilon": epsilon, "steps": steps, "realizations": realizations},
        precision=precision or "float32",
        variant=variant,
        widths=Widths(selection_width, clamp_width),
        targeted=targeted,
    )
    # By the sources' names in tables. The attacked model is a source too, with an empty name.
    paths = {"": model} | unique_names(source or [])
    sources = {name: load_model(path).to(torch_device) for name, path in paths.items()}
    data = load_images(dataset, hold_out, data_dir, download, image_size, limit, seed)
    # Labels of a user's function are positions in the model's classes already.
    data = data if is_function(dataset) else relabel(data, load_class_names(paths))
    block = even_block(len(data)) if block is None else block
    sources = {name: for_any_batch(name or model, network, data, block) for name, network in sources.items()}
    random = {name: draws_freely(name or model, network, data, deterministic) for name, network in sources.items()}
    attacks: list[Perturbation] = [*single.on(sources, random), *own_attacks(filter(is_function, named), sizes, norm)]
    if chosen_suite:
        others = {name: each for name, each in sources.items() if name} or shipped_sources(
            dataset, model, torch_device
        )
        plan = partial(suite_attack, sources[""], data, norm=norm, suite=chosen_suite, sources=others)
        attacks += [plan(epsilon=size, seed=seed, folder=output) for size in sizes]
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


def choose_suite(suite: SuiteName | None, single: Mapping[str, object]) -> str:
    """Returns the suite to run: the user's, or else the standard one; "" if an option of single attacks is set.

    Args:
        suite: The option.
        single: The options of single attacks by name, None or False if the user did not set them.

    Raises:
        ValueError: Both are set.
    """
    option = next((name for name, value in single.items() if is_given(value)), None)
    if suite is not None and option is not None:
        raise ValueError(
            f"suite is {suite!r}, expected no option of single attacks beside it: --{option.replace('_', '-')}"
        )
    return suite or ("" if option else "standard")


def own_attacks(functions: Iterable[str], sizes: Sequence[float], norm: Norm) -> Iterator[Perturbation]:
    """Yields the attack of each of the user's functions in a ball of each size; of several, names have the size."""
    for function, size in product(functions, sizes):
        loaded = load_own_attack(function, size, norm)
        yield replace(loaded, name=f"{function}, epsilon {size:g}") if len(sizes) > 1 else loaded


def require_budget(
    dataset: str,
    norm: str,
    methods: Sequence[str],
    epsilon: Sequence[float] | None,
    step_size: float | None,
    images: Path | None,
) -> None:
    """Raises ValueError where the budget has no usual value and is not given, or does not fit the images.

    Args:
        dataset, norm, epsilon, step_size, images: The options.
        methods: The single attacks; empty for a suite and for images alone.
    """
    if norm == "l2" and "pgd" in methods and (not epsilon or step_size is None):
        raise ValueError("norm is 'l2', which has no usual budget: give epsilon and step_size too")
    if norm == "l2" and not epsilon and not (images and not methods):
        raise ValueError("norm is 'l2', which has no usual budget: give epsilon too")
    if is_function(dataset) and not epsilon and not (images and not methods):
        raise ValueError(f"dataset is {dataset!r}, which has no usual budget: give epsilon too")
    if images and epsilon and len(epsilon) > 1:
        raise ValueError(f"epsilon has {len(epsilon)} values, expected one with images, which must be within it")
