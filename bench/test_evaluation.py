"""Whole evaluations: what 1,000 images cost beside 100, and two processes beside two threads."""

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
# Each takes a minute; --rounds asks for more.
MOST_ROUNDS, DEFAULT_ROUNDS = 5, 1
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]


def counted(rounds: int) -> int:
    return DEFAULT_ROUNDS if LIMIT.seconds is not None else min(rounds, MOST_ROUNDS)


def measured(images: int, processes: int = 1) -> dict[str, float]:
    """Seconds of an evaluation and of its blocks, and MiB, by one process of two threads or two processes of one."""
    starter = TORCHRUN if processes == 2 else []
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *starter, "bench.evaluation_run", folder, str(images), str(2 // processes)]
        finished = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return found


def test_time_and_memory_are_flat_in_the_number_of_images(
    benchmark: BenchmarkFixture, rounds: int, report: Report
) -> None:
    count = counted(rounds)
    few, many = [], []
    for _ in range(count):
        few.append(measured(FEW))
        many.append(measured(MANY))
    each_few, each_many = ([one["blocks"] / n for one in runs] for runs, n in ((few, FEW), (many, MANY)))
    peak_few, peak_many = ([one["mebibytes"] for one in runs] for runs in (few, many))
    time, memory = ratio(each_many, each_few), ratio(peak_many, peak_few)
    report.comparisons += [
        flat("time an image", statistics.median(each_many) * 1e3, time, "ms/image"),
        flat("peak memory", statistics.median(peak_many), memory, "MiB"),
    ]
    benchmark.extra_info.update(time=vars(time), memory=vars(memory))
    benchmark.pedantic(measured, args=(FEW,), rounds=1)


def flat(what: str, value: float, grown: Ratio, unit: str) -> Comparison:
    return Comparison(
        f"{what}, evaluation of {MANY:,}", value, {f"{FEW} images": grown}, 1.1, 1.05, lower_is_better=True, unit=unit
    )


def test_two_processes_share_the_work(benchmark: BenchmarkFixture, rounds: int, report: Report) -> None:
    one, two = [], []
    for _ in range(counted(rounds)):
        one.append(measured(SHARED)["seconds"])
        two.append(measured(SHARED, 2)["seconds"])
    shared = ratio(one, two)
    milliseconds = statistics.median(two) / SHARED * 1e3
    report.comparisons.append(
        Comparison("evaluation by two processes", milliseconds, {"one process of two threads": shared}, 0.9, 1.0)
    )
    benchmark.extra_info.update(ratio=vars(shared))
    benchmark.pedantic(measured, args=(SHARED, 2), rounds=1)
