"""The cache folder, with arrays that are computed once, and downloads through torchvision.

The package works without torchvision, which only some data sets need.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from filelock import FileLock

from ..utils.files import remove_leftovers, replacing
from ..utils.progress import print_notice


def cache_folder() -> Path:
    """Returns ``$NEUROAE_CACHE``, else ``neuroae`` in ``$XDG_CACHE_HOME``, else ``~/.cache/neuroae``."""
    folder = os.environ.get("NEUROAE_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuroae"


def cached_array(name: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the rows as one array, which the first call writes to a file and later calls read from there.

    A file that is truncated, or holds another array, is written anew. Of several processes one writes, others wait.

    Args:
        name: The name of the file in the cache folder. Different rows need different names.
        shape: The shape of the array, with the number of rows first.
        rows: uint8 arrays of shape ``shape[1:]``, consumed only if the file is missing or damaged.

    Returns:
        uint8 array of this shape, mapped copy-on-write: changes to it stay in this process.

    Raises:
        OSError: The cache folder cannot be written to.
    """
    path = cache_folder() / f"{name}.npy"
    array = map_array(path, shape)
    if array is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if map_array(path, shape) is None:
                    remove_leftovers(path)
                    write_array(path, shape, rows)
        except OSError as error:
            cause = error.__cause__ or error  # the error before ``replacing`` added the file's name
            raise OSError(f"{path} cannot be written: {cause}; set NEUROAE_CACHE to use another folder") from error
        array = map_array(path, shape)
    if array is None:
        raise OSError(f"{path} was damaged while it was written; set NEUROAE_CACHE to use another folder")
    return array


def map_array(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the file's array, mapped into memory; None if the file is missing or holds no such uint8 array."""
    if not path.exists():
        return None
    try:
        array: np.ndarray = np.load(path, mmap_mode="c")
    except (ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == shape and array.flags.c_contiguous else None


def write_array(path: Path, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> None:
    """Writes the rows one by one. If it wrote through a map, a full disk would end the process without an error."""
    action = "replacing the damaged file" if path.exists() else "writing"
    print_notice(f"{action} {path}, {np.prod(shape):,} bytes")
    header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(row.tobytes())


def require_torchvision(purpose: str) -> ModuleType:
    """Returns the module torchvision.

    Args:
        purpose: What torchvision is needed for, for the error.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise ImportError(f"{purpose} needs torchvision, which is not installed: pip install torchvision") from error
    return torchvision


@contextmanager
def downloading(name: str, data_dir: Path) -> Iterator[None]:
    """Holds a lock during the block, so that one process downloads at a time, and names failed downloads.

    Raises:
        OSError: The download failed; the message names the data set and the folder.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "download.lock"):
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise OSError(f"{name} could not be downloaded into {data_dir}: {error}") from error
