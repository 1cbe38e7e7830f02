"""The paper's robustness tables with our CIFAR-10 weights, and attacks that the paper did not try.

    python -m results.robustness table1 --data-dir DIR --weights FILE

crafts, scores and reports one experiment of ``results.evaluations``. It may be stopped at any moment and goes on when
it is started again, and ``torchrun --nproc-per-node=2 -m results.robustness ...`` shares it among processes.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from neuroae.cli.options import Device
from neuroae.data import load_dataset
from neuroae.evaluation import Evaluation, Scoring, run_evaluation
from neuroae.evaluation.models import is_random
from neuroae.reports import write_report
from neuroae.utils import distributed
from neuroae.utils.devices import choose_device
from neuroae.utils.files import replacing
from results.command import run
from results.evaluations import EXPERIMENTS, Models

# Images of every block stay in the working folder: they are large, and the same command makes them again.
COMMITTED = (
    "manifest.json",
    "records.jsonl",
    "times.jsonl",
    "summary.json",
    "results.csv",
    "results.md",
    "sanity.json",
    "report.html",
)


def main(
    experiment: Annotated[str, typer.Argument(help=f"One of {', '.join(EXPERIMENTS)}.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Safetensors of an adversarially trained ResNet-32, for table1 and table3-adversarial.",
            show_default=False,
        ),
    ] = None,
    defense: Annotated[str, typer.Option(help="Attacked: a shipped name or a folder.")] = "cifar10",
    unsupervised: Annotated[str, typer.Option(help="Source of PW-T.")] = "cifar10-unsupervised",
    unquantized: Annotated[str, typer.Option(help="Source of PW-T.")] = "cifar10-unquantized",
    undefended: Annotated[str, typer.Option(help="The plain classifier.")] = "cifar10-undefended",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Images, from the front.", show_default="the experiment's")
    ] = None,
    device: Device = None,
    work: Annotated[Path, typer.Option(help="Folder for what is kept while it runs.")] = Path("runs"),
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
) -> None:
    """Run one experiment, or go on with it, and write its report."""
    if experiment not in EXPERIMENTS:
        raise ValueError(f"experiment is {experiment!r}, expected one of {', '.join(EXPERIMENTS)}")
    chosen = EXPERIMENTS[experiment]
    models = Models(defense, unsupervised, unquantized, undefended, weights, choose_device(device))
    attacked = chosen.attacked(models)
    data = load_dataset("cifar10", "test", data_dir).take(slice(limit or chosen.images))
    scoring = Scoring() if is_random(attacked, data) else Scoring(draws=1)
    asked = Evaluation(attacked, data, chosen.attacks(models), scoring, chosen.block, chosen.name(models))
    folder = work / experiment
    with distributed.group(asked.device):
        first = distributed.is_first()
        run_evaluation(asked, folder)
    if first:
        print(write_report(folder))
        publish(folder, output / experiment)


def publish(folder: Path, output: Path) -> None:
    """Copies what is small and worth keeping."""
    for name in COMMITTED:
        with replacing(output / name) as temporary:
            shutil.copyfile(folder / name, temporary)


if __name__ == "__main__":
    run(main)
