"""Evaluates a defense and prints time and memory: ``python -m bench.evaluation_run FOLDER IMAGES THREADS``.

Each measurement has its own process, since a process's peak memory never decreases. With several processes
(``torchrun --nproc-per-node=2 -m bench.evaluation_run ...``) the first one prints.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from bench.peak_memory import peak_mebibytes
from bench.settings import CIFAR10, FASTEST, images, ours
from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet
from neuroae.evaluation import Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.evaluation import run as evaluation_run
from neuroae.utils import distributed

BLOCK = 20
BUDGET = PGDSettings(steps=2, realizations=4)


def evaluation(count: int) -> Evaluation:
    model = ours(CIFAR10)
    pixels = (images(replace(CIFAR10, batch=count)) * 255).byte()
    data = ImageSet("crops", pixels, torch.arange(count) % 10, torch.arange(count), tuple("0123456789"))
    attacks = attacks_from(model, BUDGET, ["w-nfga-smooth"], FASTEST)
    return Evaluation(model, data, attacks, Scoring(2), BLOCK)


def run(count: int, folder: Path) -> dict[str, float]:
    """Runs an evaluation. Returns its seconds, files included, and the seconds of its blocks alone."""
    planned = evaluation(count)
    distributed.wait_for_all()
    start = time.perf_counter()
    outcome = run_evaluation(planned, folder)
    return {"seconds": time.perf_counter() - start, "blocks": sum(outcome.seconds.values())}


def main(folder: Path, count: int, threads: int) -> None:
    torch.set_num_threads(threads)
    # Crafting and scoring are measured, which processes share; one process alone probes.
    evaluation_run.probe_evaluation = lambda *_: None
    with distributed.group(torch.device("cpu")):
        run(2 * BLOCK, folder / "warm-up")
        seconds = run(count, folder / "measured")
        if distributed.is_first():
            print(json.dumps(seconds | {"mebibytes": peak_mebibytes()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
