"""torchvision, which reads and fetches data sets; the package works without it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from filelock import FileLock

from ..utils.files import remove_leftovers, replacing
from ..utils.progress import say


def cache_folder() -> Path:
    """``$NEUROAE_CACHE``, else ``neuroae`` in ``$XDG_CACHE_HOME``, else ``~/.cache/neuroae``."""
    chosen = os.environ.get("NEUROAE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuroae"


def cached_array(name: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> np.ndarray:
    """The rows as one array, made by the first process that asks and read from a file by all later ones.

    A file that is truncated, or holds something else, is made anew.

    Args:
        name: of the file in the cache folder, which tells these rows from all others.
        shape: of the array, the number of rows first.
        rows: uint8 arrays of ``shape[1:]``; consumed only where the file is missing or damaged.

    Returns:
        uint8 array of the shape, mapped copy-on-write: what is written to it stays in this process.

    Raises:
        OSError: the cache folder cannot be written to.
    """
    path = cache_folder() / f"{name}.npy"
    mapped = mapped_array(path, shape)
    if mapped is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if mapped_array(path, shape) is None:
                    remove_leftovers(path)
                    write_array(path, shape, rows)
        except OSError as error:
            cause = error.__cause__ or error  # without the name of the file, where it has that already
            raise OSError(f"{path} cannot be written: {cause}; NEUROAE_CACHE may name another folder") from error
        mapped = mapped_array(path, shape)
    if mapped is None:
        raise OSError(f"{path} was damaged while it was made; NEUROAE_CACHE may name another folder")
    return mapped


def mapped_array(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The file's uint8 array; None where there is no file, or one that does not hold all of such an array."""
    if not path.exists():
        return None
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="c")
    except (ValueError, EOFError):
        return None
    return mapped if mapped.dtype == np.uint8 and mapped.shape == shape and mapped.flags.c_contiguous else None


def write_array(path: Path, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> None:
    """Written row by row, not through a map: where the disk is full, a map ends the process without a word."""
    action = "making anew, since it is damaged," if path.exists() else "writing"
    say(f"{action} {path}, {np.prod(shape):,} bytes")
    header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(row.tobytes())


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
