"""The command line: ``python -m results`` lists all experiments, and ``python -m results NAME`` runs one.

``torchrun --nproc-per-node=2 -m results NAME ...`` shares an evaluation's images among processes.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroae.evaluation import Evaluation, Scoring
from neuroae.evaluation.models import is_random
from neuroae.utils.devices import choose_device, keep_freed_memory
from results.attacks import share_transfers
from results.autoencoder import autoencoder
from results.blur import blur
from results.corruption import corruption
from results.curves import curves
from results.cut import cut
from results.dictionary import dictionary
from results.ensemble import ensemble
from results.experiment import Experiment
from results.experiments import EXPERIMENTS
from results.inputs import PUBLISHED_TITLES, SHIPPED_MODELS, TRAINED_MODELS, TRAININGS, load_models, test_images
from results.learning import learning
from results.options import OUTPUT, WORK, DataDir, Device, Output, Weights, Work
from results.queue import queue
from results.rounded import rounded
from results.runs import run
from results.schedule import schedule
from results.shipping import cards, ship
from results.suite import autoattack, suite
from results.tables import tables
from results.widths import widths
from results.worst_case import worst_case
from results.worst_of_all import worst_of_1000, worst_of_all

COMMANDS = {
    "Measurements": (
        autoattack,
        autoencoder,
        blur,
        corruption,
        curves,
        cut,
        dictionary,
        ensemble,
        learning,
        rounded,
        schedule,
        suite,
        widths,
        worst_case,
    ),
    "Tables": (tables, worst_of_all, worst_of_1000),
    "Models": (queue, ship, cards),
}
LIMIT = typer.Option(min=1, help="Number of images to use, the first ones.", show_default="the experiment's")

app = typer.Typer(
    help="The experiments behind every number of the project.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def evaluation_command(name: str, experiment: Experiment) -> Callable[..., None]:
    """Returns the experiment as a function whose parameters are the options that it takes."""

    def command(
        data_dir: Path, limit: int | None, device: str | None, work: Path, output: Path, **paths: str | Path
    ) -> None:
        models = load_models(paths, choose_device(device))
        attacked = models[experiment.attacked]
        data = test_images(experiment.dataset, data_dir, limit or experiment.num_images)
        scoring = Scoring() if is_random(attacked, data) else Scoring(draws=1)
        attacks = experiment.attacks(models)
        if experiment.shares_transfers:
            attacks = share_transfers(attacks, work / "transfers")
        evaluation = Evaluation(attacked, data, attacks, scoring, experiment.block, experiment.title(paths))
        is_first = run(evaluation, work / name, output / name)
        if is_first and experiment.write_page:
            experiment.write_page(output / name)

    parameters = [option("data_dir", DataDir), *(model_option(role) for role in experiment.roles)]
    parameters += [option("limit", Annotated[int | None, LIMIT], None), option("device", Device, None)]
    parameters += [option("work", Work, WORK), option("output", Output, OUTPUT)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def model_option(role: str) -> inspect.Parameter:
    """Returns the option that says where an evaluation's model is."""
    if role in PUBLISHED_TITLES:
        return option(role, Weights)
    title = "defense" if role == "defense" else f"{role.replace('_', ' ')} model"
    default = SHIPPED_MODELS[role] if role in SHIPPED_MODELS else str(TRAININGS / TRAINED_MODELS[role])
    return option(role, Annotated[str, typer.Option(help=f"The {title}: a shipped name or a folder.")], default)


def option(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


for name, experiment in EXPERIMENTS.items():
    app.command(name, help=experiment.summary, rich_help_panel="Evaluations")(evaluation_command(name, experiment))
for panel, functions in COMMANDS.items():
    for function in functions:
        app.command(function.__name__, rich_help_panel=panel)(function)


def main() -> None:
    """Runs the command line. For an error in the user's input it prints one line instead of a traceback."""
    keep_freed_memory()
    try:
        app(prog_name="python -m results")
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"results: {error}")


if __name__ == "__main__":
    main()
