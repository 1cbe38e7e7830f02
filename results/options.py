"""The options that several experiments share. Each is declared here once; a parameter's name is its option."""

from pathlib import Path
from typing import Annotated

import typer

from neuroae.cli.options import Device, Limit

__all__ = [
    "DataDir",
    "Device",
    "Evaluation",
    "Evaluations",
    "Limit",
    "Model",
    "OptionalEvaluation",
    "OptionalEvaluations",
    "Output",
    "Weights",
    "Work",
]

EVALUATION_FOLDER = typer.Option(help="Folder of a finished evaluation with its images, such as runs/table1.")

DataDir = Annotated[Path, typer.Option(help="Folder with CIFAR-10, or with Imagenette where Imagenette is attacked.")]
Model = Annotated[str, typer.Option(help="The measured model: a shipped name or a folder.")]
Weights = Annotated[
    Path,
    typer.Option("--weights", help="Published weights of the experiment's classifier, as safetensors."),
]
EVALUATION_FOLDERS = typer.Option(
    "--evaluation", help="Folder of a finished evaluation with its images, such as runs/table1; repeat it for more."
)
Evaluation = Annotated[Path, EVALUATION_FOLDER]
OptionalEvaluation = Annotated[Path | None, EVALUATION_FOLDER]
Evaluations = Annotated[list[Path], EVALUATION_FOLDERS]
OptionalEvaluations = Annotated[list[Path] | None, EVALUATION_FOLDERS]
Work = Annotated[
    Path, typer.Option(help="Folder for unfinished work and for images; each experiment has its own folder in it.")
]
Output = Annotated[Path, typer.Option(help="Folder for the results; each experiment has its own folder in it.")]

WORK = Path("runs")
OUTPUT = Path("results")
