"""Fixtures of the benchmarks: threads, rounds, comparisons, and the tables at the end."""

import os
import statistics
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import LIMIT, Action, interleaved, ratio
from bench.report import Comparison, Report
from neuroae.kernels import backend_name
from neuroae.utils.devices import keep_freed_memory

REPORT = Report()
MOST_ROUNDS, LIMIT_SECONDS = 15, 6.0

Compare = Callable[..., Comparison]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds",
        type=int,
        help=f"timed calls of each alternative (default: as many as fit in {LIMIT_SECONDS} seconds, from 3 to "
        f"{MOST_ROUNDS})",
    )
    parser.addoption("--threads", type=int, default=2, help="threads for both sides (default: 2)")


def pytest_configure(config: pytest.Config) -> None:
    """Both sides run with the allocator settings of the command line."""
    keep_freed_memory()
    LIMIT.seconds = LIMIT_SECONDS if config.getoption("--rounds") is None else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = REPORT.lines()
    if not lines:
        return
    threads = config.getoption("--threads")
    terminalreporter.section(f"neuroae: {backend_name('cpu')} backend against eager dense PyTorch, {threads} threads")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(min(request.config.getoption("--threads"), os.cpu_count() or 1))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _announce(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prints the lines of each benchmark as it ends. The tables come at the end, also after an interrupt."""
    counts = len(REPORT.comparisons), len(REPORT.stages)
    yield
    lines = Report(REPORT.comparisons[counts[0] :], REPORT.stages[counts[1] :]).rows()
    manager = request.config.pluginmanager
    terminal, capture = manager.getplugin("terminalreporter"), manager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for line in lines:
            terminal.ensure_newline()
            terminal.write_line(line)


@pytest.fixture
def report() -> Report:
    return REPORT


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    option = request.config.getoption("--rounds")
    return MOST_ROUNDS if option is None else int(option)


@pytest.fixture
def compare(benchmark: BenchmarkFixture, rounds: int) -> Compare:
    """Returns a function that times our action and the alternatives in turn, and records the ratios.

    pytest-benchmark then times our action once more for its own table.
    """

    def run(
        title: str,
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
        row = Comparison(title, statistics.median(seconds["ours"]) / images * 1e3, ratios, bound, aim, lower)
        REPORT.comparisons.append(row)
        benchmark.extra_info.update(
            what=title,
            images=images,
            backend=backend_name(device),
            threads=torch.get_num_threads(),
            milliseconds_per_image={n: statistics.median(s) / images * 1e3 for n, s in seconds.items()},
            ratios={name: vars(value) for name, value in ratios.items()},
            bound=bound,
            aim=aim,
        )
        benchmark.pedantic(ours, rounds=len(seconds["ours"]), warmup_rounds=0)
        return row

    return run
