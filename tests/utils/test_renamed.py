"""Names of version 0.1: each still imports its module, and a warning gives the new name."""

import importlib
import subprocess
import sys

import pytest

from neuroae.utils.renamed import RENAMED


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_the_new_module(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {RENAMED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(RENAMED[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == RENAMED[old]


def test_the_package_itself_uses_no_old_name() -> None:
    """Every module is imported with warnings as errors, in a process that has not imported any."""
    script = (
        "import warnings, pkgutil, importlib, neuroae; warnings.simplefilter('error', DeprecationWarning)\n"
        "for part in pkgutil.walk_packages(neuroae.__path__, 'neuroae.'):\n"
        "    if part.name.count('.') < 2 and part.name != 'neuroae.__main__': importlib.import_module(part.name)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
