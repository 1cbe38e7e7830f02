"""What a result was made with."""

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

__version__ = "0.1.0"
SHOWN_DIGITS = 12
UNKNOWN_COMMIT = "unknown, installed without its repository"


def versions() -> dict[str, str]:
    """Versions of this package, of those that decide numbers, and the commit; an installed copy does not know it.

    The C++ backend is told by its instruction set and the start of its file's SHA-256 sum, for its compiler decides
    numbers too.
    """
    return {
        "neuroae": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": version("scikit-learn"),
        "python": platform.python_version(),
        "C++ engine": cpp_backend(),
        **gpu(),
        "commit": git_commit(Path(__file__).parent) or UNKNOWN_COMMIT,
    }


def cpp_backend() -> str:
    try:
        instructions = cpu.instruction_set()
    except BackendMissing:
        return "missing"
    return f"{instructions}, {cpu.digest()[:SHOWN_DIGITS]}"


def gpu() -> dict[str, str]:
    """What decides numbers where there is one: its kind, and the compiler of its kernels."""
    if not torch.cuda.is_available():
        return {}
    try:
        import triton  # whose distribution has several names

        compiler = triton.__version__
    except ImportError:
        compiler = "missing"
    return {"GPU": torch.cuda.get_device_name(), "triton": compiler}


def note_versions(path: Path, noted: dict[str, Any]) -> None:
    """Warns where work goes on with other versions than it was made with so far, and adds them to its file.

    Args:
        path: the file, in the folder of the work.
        noted: what it holds; its "versions" are those that it was made with.
    """
    here = versions()
    if here in noted["versions"]:
        return
    said = difference("versions", noted["versions"][-1], here)
    warnings.warn(f"{path.parent} was begun with other versions: {said}", stacklevel=3)
    save_json(path, noted | {"versions": [*noted["versions"], here]})


def git_commit(folder: Path) -> str | None:
    """The commit that a folder is checked out at, "-dirty" where files differ from it; None outside of a checkout."""
    try:
        # An installed copy may lie within a repository that is another project's, and does not track it.
        git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
