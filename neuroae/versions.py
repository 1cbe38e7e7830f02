"""What a result was made with."""

import platform
import subprocess
from pathlib import Path

import numpy
import sklearn
import torch

from . import __version__

UNKNOWN_COMMIT = "unknown, installed without its repository"


def versions() -> dict[str, str]:
    """Versions of this package, of those that decide numbers, and the commit; an installed copy does not know it."""
    return {
        "neuroae": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "commit": git_commit(Path(__file__).parent) or UNKNOWN_COMMIT,
    }


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
