"""torchvision, which reads and fetches data sets; the package works without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from .cache import cache_folder


def require_torchvision(purpose: str) -> ModuleType:
    """The module; ImportError says what it was needed for."""
    try:
        import torchvision
    except ImportError as error:
        raise ImportError(f"{purpose} needs torchvision, which is not installed: pip install torchvision") from error
    return torchvision


@contextmanager
def downloading(name: str, data_dir: Path) -> Iterator[None]:
    """One process at a time; a failure names the data set and the folder."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "download.lock"):
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise OSError(f"{name} could not be downloaded into {data_dir}: {error}") from error
