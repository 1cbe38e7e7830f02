"""Files: written whole or not at all, read with errors that name them. Nothing here unpickles."""

import errno
import glob
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import Tensor

LONGEST_SHOWN = 200
LOCK = ".lock"
# Long after any of our files is written; what is older was left by a process that was killed.
LEFTOVER_SECONDS = 600.0
DIGESTS = "tensor_sha256"
# What file systems without a way to flush answer: those of FUSE, SMB and some networks, of folders above all.
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# The folders that this process works in, and their lock files as the system tells files apart: another run's has
# another number, since a file that is open keeps its own though it was removed.
CLAIMS: dict[Path, tuple[int, int]] = {}
ANOTHER_FOLDER = "Use another folder, or remove this one to start anew"


class FolderReplacedError(OSError):
    """The folder that a run works in was removed, or another run has made it anew."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        FolderReplacedError: ``path`` is in a folder that this process claimed and that is another run's by now.
        OSError: the file cannot be written, as where the disk is full; the message names it.
    """
    require_claim(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            require_claim(path)
            temporary.chmod(0o666 & ~current_umask())
            flush(temporary)
            os.replace(temporary, path)
        if os.name == "posix":  # elsewhere folders cannot be opened
            with naming(path):
                flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in errors of the system that name none, or its temporary file, which is gone by then."""
    try:
        yield
    except OSError as error:
        temporary = Path(str(error.filename)).name.startswith(f".{path.stem}-")
        if error.errno is None or not (error.filename is None or temporary):
            raise
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror}") from error


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk: a power cut leaves what was there or what is.

    Some file systems cannot promise that, and then nothing is waited for.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync(handle: int) -> None:
    """``os.fsync`` of an open file or folder, where the file system has it."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the claim ends with the block, or with the process that was killed in it.

    What is written into the folder within the block is refused where the folder has been removed or replaced.

    Raises:
        BlockingIOError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        with naming(folder / LOCK):
            lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"another run is at work in {folder}: wait until it has ended, or use another folder"
        ) from None
    try:
        with watched(folder):
            yield
    finally:
        lock.release()


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Holds what this process writes into the folder to the claim that stands there, its own or its group's."""
    place, lock = Path(os.path.abspath(folder)), lock_of(folder)
    before = CLAIMS.get(place)
    if lock is not None:
        CLAIMS[place] = lock
    try:
        yield
    finally:
        CLAIMS.pop(place, None)
        if before is not None:
            CLAIMS[place] = before


def require_claim(path: Path) -> None:
    """Refuses to write to ``path`` where it is in a claimed folder that is no longer the one that was claimed.

    Raises:
        FolderReplacedError: so it is.
    """
    for folder in Path(os.path.abspath(path)).parents:
        if folder in CLAIMS and CLAIMS[folder] != lock_of(folder):
            raise FolderReplacedError(
                f"{folder} was removed or replaced while this run was at work in it, so that {path.name} is not "
                "written; start this run again, in another folder if another run has this one"
            )


def lock_of(folder: Path) -> tuple[int, int] | None:
    """Device and number of the folder's lock file; None where there is none."""
    try:
        status = (folder / LOCK).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_leftovers(path: Path, seconds: float = 0.0) -> None:
    """Removes the temporary files that a process left when it was killed while it wrote ``path``.

    Args:
        path: the file.
        seconds: age from which a temporary file is taken for a leftover, where another process may be writing.
    """
    latest = time.time() - seconds
    # Names as tempfile makes them; others are of other files.
    made = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}-*{path.suffix}"):
        if not made.fullmatch(leftover.name):
            continue
        with suppress(FileNotFoundError):  # another process has finished with it
            if not seconds or leftover.stat().st_mtime < latest:
                leftover.unlink()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes safetensors; each metadata value is stored as JSON. Tensors come back contiguous, each by itself.

    A digest of each tensor is written too, by which ``load_tensors`` knows damage.

    Raises:
        OSError: the file cannot be written, as where the disk is full.
    """
    # Copies, since the format holds no memory that tensors share, as tied weights do.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    digests = {name: tensor_digest(tensor) for name, tensor in copies.items()}
    text = {name: json.dumps(value) for name, value in {**(metadata or {}), DIGESTS: digests}.items()}
    # Not by its save_file, which writes beside the file by a name of its own: a kill would leave that for ever.
    content = ordered_header(safetensors.torch.save(copies, text))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def ordered_header(content: bytes) -> bytes:
    """The same safetensors, its metadata in the order of their names: the library's changes with the process."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def tensor_digest(tensor: Tensor) -> str:
    """Hexadecimal SHA-256 of the dtype, the shape and the numbers of a contiguous tensor on the CPU."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if tensor.numel():
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)  # as bytes, since NumPy has no bfloat16
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by ``save_tensors``; metadata of other writers may stay text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged: no whole safetensors, or a tensor that does not fit its digest. Files of other
            writers and earlier versions have no digests.
    """
    require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            texts = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    metadata = {name: decode_metadata(path, name, text) for name, text in texts.items()}
    if DIGESTS in metadata:
        check_digests(path, tensors, metadata.pop(DIGESTS))
    return tensors, metadata


def check_digests(path: Path, tensors: Mapping[str, Tensor], digests: Any) -> None:
    if not isinstance(digests, dict) or digests.keys() != tensors.keys():
        raise ValueError(f"{path} is damaged: its digests are not those of its tensors")
    for name, tensor in tensors.items():
        if digests[name] != tensor_digest(tensor):
            raise ValueError(f"{path} is damaged: {name} does not fit its digest")


def has_digests(path: Path) -> bool:
    """Whether damage to the tensors of a file, which can be loaded, would be noticed."""
    with safetensors.safe_open(path, framework="pt") as file:
        return DIGESTS in (file.metadata() or {})


def decode_metadata(path: Path, name: str, text: str) -> Any:
    """The value of some JSON, or the text itself, as other writers may put it.

    Raises:
        ValueError: it is JSON that cannot be read; the message names the file.
    """
    try:
        return decode_json(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its metadata {name} cannot be read: {error}") from error


def decode_json(text: str) -> Any:
    """The value; ValueError for what is no JSON, or nested or with numbers beyond what Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def save_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    require_file(path)
    try:
        return decode_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing" if not path.exists() else f"{path} is not a file")


def require_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuses to go on with a file that belongs to a run with other settings.

    Args:
        path: the file, named in the error.
        found: the settings that it holds.
        expected: those that are asked for.

    Raises:
        ValueError: they differ; the message says where.
    """
    differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if differing:
        said = "; ".join(difference(name, found.get(name), expected.get(name)) for name in differing)
        raise ValueError(f"{path} belongs to another run: {said}. {ANOTHER_FOLDER}")


def require_empty(path: Path, work: Iterable[Path]) -> None:
    """Refuses a folder with work in it but without the file that says whose: it would be taken for this run's.

    Args:
        path: that file, which is missing.
        work: files and folders that a run leaves beside it; those that are there are refused.

    Raises:
        ValueError: one of them is there.
    """
    for left in work:
        if left.exists():
            said = f"{path.parent} holds {left.name} and no {path.name}, which would say what it belongs to"
            raise ValueError(f"{said}. {ANOTHER_FOLDER}")


def difference(name: str, there: Any, here: Any) -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        inner = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        return "; ".join(difference(f"{name}.{key}", there.get(key), here.get(key)) for key in inner)
    said = f"{name} is {there!r} there and {here!r} here"
    return said if len(said) < LONGEST_SHOWN else f"{name} differs"
