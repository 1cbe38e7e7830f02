"""Runs the Triton engine's tests in Triton's interpreter, which must be chosen before a process loads a kernel."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuroae.kernels import interpreting

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(interpreting(), reason="already in the interpreter"),
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux only"),
]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_triton_philox.py", "test_triton_encoder.py", "test_triton_conv.py"])
def test_in_the_interpreter(file: str) -> None:
    """All of the file's tests ran, none was skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE / file)],
        cwd=HERE.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout
