"""The versions with which a result was computed, and warnings when they change."""

import platform
import subprocess
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch

from ..kernels import BackendMissing, cpu
from .files import difference, save_json

__version__ = "0.2.0"
DIGEST_DIGITS = 12
UNKNOWN_COMMIT = "unknown, installed without its repository"


def versions() -> dict[str, str]:
    """Returns the versions of everything that affects results: packages, C++ library, GPU and commit."""
    return {
        "neuroae": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": version("scikit-learn"),
        "python": platform.python_version(),
        # Saved models and evaluations use this key; under another key the version would seem to have changed.
        "C++ engine": cpp_library(),
        **gpu(),
        "commit": git_commit(Path(__file__).parent) or UNKNOWN_COMMIT,
    }


def cpp_library() -> str:
    """Returns the C++ library's instruction set and the start of its file's SHA-256 digest; "missing" without one.

    The digest is included because the compiler affects results too.
    """
    try:
        instructions = cpu.instruction_set()
    except BackendMissing:
        return "missing"
    return f"{instructions}, {cpu.digest()[:DIGEST_DIGITS]}"


def gpu() -> dict[str, str]:
    """Returns the GPU's name and the version of Triton, which compiles its kernels; nothing without a GPU."""
    if not torch.cuda.is_available():
        return {}
    try:
        import triton  # its distribution has several names, so importlib.metadata would not do

        compiler = triton.__version__
    except ImportError:
        compiler = "missing"
    return {"GPU": torch.cuda.get_device_name(), "triton": compiler}


def note_versions(path: Path, record: dict[str, Any]) -> None:
    """Adds this process's versions to a record, with a warning, unless the record holds them already.

    Args:
        path: The record's JSON file, in the folder of the work that is resumed.
        record: The file's content. Its "versions" lists the versions with which the work was done so far.
    """
    current = versions()
    if current in record["versions"]:
        return
    differences = difference("versions", record["versions"][-1], current)
    warnings.warn(f"{path.parent} was begun with other versions: {differences}", stacklevel=3)
    save_json(path, record | {"versions": [*record["versions"], current]})


def git_commit(folder: Path) -> str | None:
    """Returns the commit of a folder's checkout, with "-dirty" if files differ; None outside of a checkout."""
    try:
        # Fails for an installed copy inside of another project's repository, which does not track the package.
        git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(folder: Path, *arguments: str) -> str:
    """Returns the output of a git command in a folder."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
