"""Threads, rounds and the tables."""

import os
import statistics
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Action, interleaved, ratio
from bench.report import Comparison, Report
from neuroae.kernels import engine_name
from neuroae.memory import keep_freed_memory

REPORT = Report()

Compare = Callable[..., Comparison]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=15, help="timed calls of each alternative (default: 15)")
    parser.addoption("--threads", type=int, default=2, help="threads for both sides (default: 2)")


def pytest_configure(config: pytest.Config) -> None:
    """Both sides run in memory as the command line keeps it."""
    keep_freed_memory()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = REPORT.lines()
    if not lines:
        return
    threads = config.getoption("--threads")
    terminalreporter.section(f"neuroae: {engine_name('cpu')} engine against eager dense PyTorch, {threads} threads")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(request.config.getoption("--threads"), os.cpu_count() or 1))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def report() -> Report:
    return REPORT


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))


@pytest.fixture
def compare(benchmark: BenchmarkFixture, rounds: int) -> Compare:
    """Times ours and the alternatives in turn, records the ratios, and lets pytest-benchmark time ours again."""

    def run(
        what: str,
        images: int,
        ours: Action,
        alternatives: dict[str, Action],
        bound: float | None = None,
        aim: float | None = None,
        most_rounds: int = 1000,
        device: str = "cpu",
        lower: bool = False,
    ) -> Comparison:
        count = min(rounds, most_rounds)
        seconds = interleaved({"ours": ours, **alternatives}, count)
        ratios = {name: ratio(seconds[name], seconds["ours"]) for name in alternatives}
        row = Comparison(what, statistics.median(seconds["ours"]) / images * 1e3, ratios, bound, aim, lower)
        REPORT.comparisons.append(row)
        benchmark.extra_info.update(
            what=what,
            images=images,
            engine=engine_name(device),
            threads=torch.get_num_threads(),
            milliseconds_per_image={n: statistics.median(s) / images * 1e3 for n, s in seconds.items()},
            ratios={name: vars(value) for name, value in ratios.items()},
            bound=bound,
            aim=aim,
        )
        benchmark.pedantic(ours, rounds=count, warmup_rounds=0)
        return row

    return run
