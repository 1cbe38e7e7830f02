"""Every experiment as a command: what is set before its work begins."""

import runpy
import sys
from pathlib import Path

import pytest

from results import command

FOLDER = Path(command.__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_experiment_keeps_the_memory_that_it_frees(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(command, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module(f"results.{script}", run_name="__main__")
    assert kept == [True]
