"""Evaluations: 1,000 images compared with 100, and two processes with two threads."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import LIMIT, Ratio, ratio
from bench.report import Comparison, Report

FEW, MANY, SHARED = 100, 1000, 200
# Each takes a minute; --rounds gives more.
MOST_ROUNDS, DEFAULT_ROUNDS = 5, 1
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]


def num_rounds(rounds: int) -> int:
    return DEFAULT_ROUNDS if LIMIT.seconds is not None else min(rounds, MOST_ROUNDS)


def measure(images: int, processes: int = 1) -> dict[str, float]:
    """Runs an evaluation in one process with two threads or in two processes with one.

    Returns its seconds, the seconds of its blocks, and the peak memory in MiB.
    """
    starter = TORCHRUN if processes == 2 else []
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *starter, "bench.evaluation_run", folder, str(images), str(2 // processes)]
        finished = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def test_time_and_memory_are_flat_in_the_number_of_images(
    benchmark: BenchmarkFixture, rounds: int, report: Report
) -> None:
    count = num_rounds(rounds)
    few, many = [], []
    for _ in range(count):
        few.append(measure(FEW))
        many.append(measure(MANY))
    seconds_few, seconds_many = ([run["blocks"] / n for run in runs] for runs, n in ((few, FEW), (many, MANY)))
    peak_few, peak_many = ([run["mebibytes"] for run in runs] for runs in (few, many))
    time, memory = ratio(seconds_many, seconds_few), ratio(peak_many, peak_few)
    report.comparisons += [
        flat("time for each image", statistics.median(seconds_many) * 1e3, time, "ms/image"),
        flat("peak memory", statistics.median(peak_many), memory, "MiB"),
    ]
    benchmark.extra_info.update(time=vars(time), memory=vars(memory))
    benchmark.pedantic(measure, args=(FEW,), rounds=1)


def flat(title: str, value: float, growth: Ratio, unit: str) -> Comparison:
    return Comparison(
        f"{title}, evaluation of {MANY:,}",
        value,
        {f"{FEW} images": growth},
        1.1,
        1.05,
        lower_is_better=True,
        unit=unit,
    )


def test_two_processes_share_the_work(benchmark: BenchmarkFixture, rounds: int, report: Report) -> None:
    one, two = [], []
    for _ in range(num_rounds(rounds)):
        one.append(measure(SHARED)["seconds"])
        two.append(measure(SHARED, 2)["seconds"])
    shared = ratio(one, two)
    milliseconds = statistics.median(two) / SHARED * 1e3
    report.comparisons.append(
        Comparison("evaluation by two processes", milliseconds, {"one process of two threads": shared}, 0.9, 1.0)
    )
    benchmark.extra_info.update(ratio=vars(shared))
    benchmark.pedantic(measure, args=(SHARED, 2), rounds=1)
