"""Steps of the Imagenette defense with EfficientNet-B0 at 160 x 160: time and peak memory, beside eager PyTorch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Ratio
from bench.report import Comparison, Report

ROOT = Path(__file__).parent.parent


def measure(model: str, decoder: str, step: str) -> tuple[float, float]:
    """Returns milliseconds an image, and the peak memory of the process in MiB."""
    command = [sys.executable, "-m", "bench.imagenette_step", model, decoder, step, str(torch.get_num_threads())]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    milliseconds, mebibytes = finished.stdout.split()[-2:]
    return float(milliseconds), float(mebibytes)


@pytest.mark.parametrize("step", ["training", "W-NFGA", "selection"])
@pytest.mark.parametrize("decoder", ["three", "resize"])
def test_imagenette(benchmark: BenchmarkFixture, report: Report, decoder: str, step: str) -> None:
    """Ratios of the selection are to the eager step of W-NFGA, of which it has two realizations."""
    time, memory = benchmark.pedantic(measure, args=("ours", decoder, step), rounds=1)
    eager_time, eager_memory = measure("eager", decoder, "W-NFGA" if step == "selection" else step)
    title = f"Imagenette, decoder {decoder}, {step}"
    for name, unit, ours, theirs in (
        ("time", "ms/image", time, eager_time),
        ("peak memory", "MiB", memory, eager_memory),
    ):
        ratio = Ratio(*[theirs / ours] * 3)
        report.comparisons.append(Comparison(f"{title}, {name}", ours, {"eager": ratio}, unit=unit))
    benchmark.extra_info.update(milliseconds=time, mebibytes=memory, eager=(eager_time, eager_memory))
