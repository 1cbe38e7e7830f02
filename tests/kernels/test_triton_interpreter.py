"""Runs the Triton backend's tests in Triton's interpreter, in processes that enable it before they load a kernel."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from neuroae.kernels import is_interpreting

FOLDER = Path(__file__).parent
FILES = (
    "test_triton_encoder.py",
    "test_triton_selection.py",
    "test_triton_conv.py",
    "test_triton_checks.py",
    "test_triton_philox.py",
)

pytestmark = [
    pytest.mark.skipif(is_interpreting(), reason="already in the interpreter"),
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux only"),
]


def run(file: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(FOLDER / file)],
        cwd=FOLDER.parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, "Future[subprocess.CompletedProcess[str]]"]]:
    """Runs all files, as many at once as there are cores: the interpreter uses one."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {file: pool.submit(run, file) for file in FILES}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_in_the_interpreter(file: str, running: dict[str, "Future[subprocess.CompletedProcess[str]]"]) -> None:
    """All tests of the file pass, and none is skipped."""
    finished = running[file].result()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"^\d+ passed in", finished.stdout, re.MULTILINE), finished.stdout
