"""The trainings of the models in the paper's tables that do not ship, one after the other.

Each training is a ``neuroae train`` with a folder of its own. Finished ones are skipped, and a stopped one goes on at
its last checkpoint. An interrupt (Ctrl+C) or a termination of the queue stops the training in progress and ends the
queue; so does a file named ``stop`` in the folder, after the training in progress.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from neuroae.models import CONFIG
from results.inputs import TRAININGS
from results.options import Device

STOP = "stop"
# Trainings that were stopped by the queue's end get this long to end by themselves.
PATIENCE = 60.0


@dataclass(frozen=True)
class Training:
    """One ``neuroae train``.

    Attributes:
        name: The name of its folder.
        options: Its options, without the folders of the data and the model, and without the dictionary.
        dataset: The name of the data set.
        defense: Whether it uses the dictionary of the data set.
    """

    name: str
    options: str
    dataset: str = "cifar10"
    defense: bool = True


# Peak learning rates are those of the published trainings.
QUEUE = (
    Training("complete", "--epochs 12"),
    Training("no-quantization", "--epochs 12 --no-quantize"),
    Training("t1-p0", "--epochs 12 --top-t 1 --dropout-p 0"),
    Training("t5-p0.5", "--epochs 12 --top-t 5 --dropout-p 0.5"),
    Training("t10-p0.75", "--epochs 12 --top-t 10 --dropout-p 0.75 --learning-rate 0.025"),
    Training("no-dropout", "--epochs 12 --dropout-p 0 --learning-rate 0.01"),
    Training("no-top-t", "--epochs 12 --top-t 500 --learning-rate 0.01"),
    Training(
        "no-dropout-us", "--method unsupervised --epochs 8 --decoder-epochs 8 --dropout-p 0 --learning-rate 0.01"
    ),
    Training("no-top-t-us", "--method unsupervised --epochs 8 --decoder-epochs 8 --top-t 500 --learning-rate 0.01"),
    Training("imagenette", "--epochs 15", "imagenette"),
    Training("imagenette-undefended", "--method plain --epochs 20", "imagenette", False),
    Training(
        "imagenette-no-quantization-us",
        "--method unsupervised --no-quantize --epochs 8 --decoder-epochs 5",
        "imagenette",
    ),
    Training("k-sparse", "--method plain --front-end k-sparse-autoencoder --epochs 10", defense=False),
    Training("r-fgsm-at", "--method r-fgsm-at --epochs 15", defense=False),
    Training("imagenette-r-fgsm-at", "--method r-fgsm-at --epochs 15", "imagenette", False),
)
NAMES = ", ".join(training.name for training in QUEUE)


def queue(
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    dictionary: Annotated[Path, typer.Option(help="File with the atoms for CIFAR-10.")],
    imagenette_dir: Annotated[
        Path | None, typer.Option(help="Folder with Imagenette.", show_default="no trainings on it")
    ] = None,
    imagenette_dictionary: Annotated[
        Path | None, typer.Option(help="File with the atoms for Imagenette.", show_default="no defenses on it")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Name of a training to run: {NAMES}; may be repeated.", show_default="all"),
    ] = None,
    device: Device = None,
    folder: Annotated[Path, typer.Option(help="Folder for the trainings, each in its own folder.")] = TRAININGS,
) -> None:
    """Trains the other models of the paper's tables."""
    data = {"cifar10": data_dir, "imagenette": imagenette_dir}
    dictionaries = {"cifar10": dictionary, "imagenette": imagenette_dictionary}
    for training in chosen(only):
        if (folder / training.name / CONFIG).exists():
            print(f"{training.name} is trained already")
            continue
        if (folder / STOP).exists():
            print(f"stopped before {training.name}, because {folder / STOP} exists")
            return
        words = command(training, folder, data, dictionaries)
        if words is None:
            print(f"{training.name} is left out: it needs --imagenette-dir and --imagenette-dictionary")
            continue
        extra = [] if device is None else ["--device", device]
        print(f"training {training.name}", flush=True)
        run_training([*words, *extra])


def chosen(names: list[str] | None) -> Iterator[Training]:
    """Yields the trainings of these names in the queue's order, all of them for None.

    Raises:
        ValueError: A name is unknown.
    """
    for name in names or []:
        if name not in {training.name for training in QUEUE}:
            raise ValueError(f"only is {name!r}, expected one of {NAMES}")
    return (training for training in QUEUE if not names or training.name in names)


def command(
    training: Training, folder: Path, data: Mapping[str, Path | None], dictionaries: Mapping[str, Path | None]
) -> list[str] | None:
    """Returns the command line of a training; None where its data or its dictionary is missing."""
    data_dir, dictionary = data[training.dataset], dictionaries[training.dataset]
    if data_dir is None or (training.defense and dictionary is None):
        return None
    words = [sys.executable, "-m", "neuroae", "train", "--dataset", training.dataset, "--data-dir", str(data_dir)]
    words += ["--precision", "bfloat16", "--output", str(folder / training.name), *training.options.split()]
    return words + (["--dictionary", str(dictionary)] if training.defense else [])


def run_training(words: list[str]) -> None:
    """Runs a training to its end.

    Raises:
        KeyboardInterrupt: The queue was interrupted or terminated; the training has ended, too.
        ValueError: The training failed.
    """
    with termination_as_interrupt():
        process = subprocess.Popen(words)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if status:
        raise ValueError(f"the training ended with status {status}: {' '.join(words[1:])}")


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Raises ``KeyboardInterrupt`` where the process is told to terminate within the block."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
