"""Data and weights in a folder beside the project; tests that need them are skipped if they are missing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def existing(path: Path) -> Path:
    """Returns the path; skips the test if it does not exist."""
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
