"""Peak memory of one EOT gradient, which must not grow with the number of realizations."""

import subprocess
import sys
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Ratio
from bench.report import Comparison, Report


def peak(realizations: int) -> float:
    command = [sys.executable, "-m", "bench.peak_memory", str(realizations)]
    root = Path(__file__).parent.parent
    finished = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return float(finished.stdout.split()[-1])


def test_eot_memory(benchmark: BenchmarkFixture, report: Report) -> None:
    one = peak(1)
    forty = benchmark.pedantic(peak, args=(40,), rounds=1)
    growth = Ratio(forty / one, forty / one, forty / one)
    report.comparisons.append(
        Comparison(
            "peak memory of an EOT gradient, 40 realizations",
            forty,
            {"1 realization": growth},
            2.0,
            1.2,
            lower_is_better=True,
            unit="MiB",
        )
    )
    benchmark.extra_info.update(mebibytes={"1": one, "40": forty}, ratio=forty / one)
