"""Runs evaluations, in a folder and in memory. Nothing else in ``results`` starts one."""

import shutil
from pathlib import Path
from typing import NamedTuple

from torch import nn

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Evaluation, Record, Scoring, run_evaluation
from neuroae.reports import write_report
from neuroae.utils import distributed
from neuroae.utils.files import replacing

# The images stay in the working folder: they are large, and the same command makes them again.
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


def run(evaluation: Evaluation, work: Path, output: Path) -> bool:
    """Runs or continues an evaluation, writes its report, and copies the files that are committed.

    Under ``torchrun`` the processes share the images, and the first of them reports.

    Args:
        evaluation: The evaluation.
        work: Its folder, with all images.
        output: The folder of its committed files.

    Returns:
        Whether this process is the first.
    """
    with distributed.group(evaluation.device):
        is_first = distributed.is_first()
        run_evaluation(evaluation, work)
    if is_first:
        print(write_report(work))
        publish(work, output)
    return is_first


def publish(work: Path, output: Path) -> None:
    """Copies the files that are committed from an evaluation's working folder."""
    for name in COMMITTED:
        with replacing(output / name) as temporary:
            shutil.copyfile(work / name, temporary)


class CleanScores(NamedTuple):
    """A model's answers to clean images.

    Attributes:
        records: One record for each image, in the order of the data.
        seconds: The time that scoring took.
    """

    records: list[Record]
    seconds: float


def score_clean(model: nn.Module, data: ImageSet, draws: int, seed: int, title: str, block: int = 64) -> CleanScores:
    """Scores a model on clean images, without a folder.

    Args:
        model: The model, from images in [0, 1] to logits, in evaluation mode.
        data: The images.
        draws: E, the realizations that vote on an image.
        seed: The seed of the scoring draws.
        title: The model's name in the progress bar.
        block: Images in a batch.
    """
    results = run_evaluation(Evaluation(model, data, [], Scoring(draws, seed), block, title))
    return CleanScores(results.records[CLEAN], results.seconds[CLEAN])
