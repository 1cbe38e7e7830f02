"""The examples run as they stand, and show what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What an example prints at the end, and the range in which the number must lie.
PROMISES = {
    "drop_in_layer": (r"([\d.]+)% of 500 test images", 90, 100),
    "own_defense": (r"keeps ([\d.]+)%", 0, 40),
    "own_images": (r"clean: ([\d.]+)%", 90, 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_keeps_its_promise(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NEUROAE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pattern, low, high = PROMISES[path.stem]
    number = re.search(pattern, done.stdout)
    assert number is not None, done.stdout
    assert low <= float(number[1]) <= high


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
