"""JSON and tensor files, which are replaced in one step, and folders that are claimed by one run at a time.

Errors name the file. Nothing here unpickles.
"""

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

LOCK = ".lock"
# The metadata key under which a tensor file holds the digests of its tensors.
DIGESTS = "tensor_sha256"
# A temporary file of this age was left by a killed process, since none of our files takes as long to write.
LEFTOVER_SECONDS = 600.0
# Errors of file systems that cannot flush, especially folders, such as FUSE, SMB and other network file systems.
FLUSH_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
MAX_DIFFERENCE_LENGTH = 200
ANOTHER_FOLDER = "Use another folder, or remove this one to start anew"
# The folders that this process works in, with the device and inode of each one's lock file. If another run replaces
# the folder, its lock file has another inode, because an open file keeps its inode even after it is removed.
CLAIMS: dict[Path, tuple[int, int]] = {}


class FolderReplacedError(OSError):
    """The folder that a run works in was removed, or another run has created it anew."""


# Reading and writing JSON


def save_json(path: Path, value: Any) -> None:
    """Writes a value as JSON.

    Raises:
        OSError: The file cannot be written.
        TypeError: JSON cannot hold the value.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """Returns the value in a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not JSON.
    """
    require_file(path)
    try:
        return decode_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def decode_json(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, is nested too deep, or holds numbers too long for Python.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


# Reading and writing tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes tensors and metadata as safetensors, with a digest of each tensor, so that ``load_tensors`` sees damage.

    Args:
        path: The file.
        tensors: The tensors by name. They are stored contiguous, and separately even if they share memory.
        metadata: Values that JSON can hold, by name.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    # Copies, since the format cannot hold tensors that share memory, such as tied weights.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    digests = {name: tensor_digest(tensor) for name, tensor in copies.items()}
    texts = {name: json.dumps(value) for name, value in {**(metadata or {}), DIGESTS: digests}.items()}
    # Not by safetensors' save_file: it uses a temporary name of its own, which a killed process would leave for ever.
    content = sort_metadata(safetensors.torch.save(copies, texts))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sort_metadata(content: bytes) -> bytes:
    """Returns the safetensors file with its metadata sorted by name; the library's order changes with the process."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def tensor_digest(tensor: Tensor) -> str:
    """Returns the SHA-256 digest of dtype, shape and values of a contiguous tensor on the CPU, in hexadecimal."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if tensor.numel():
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)  # as bytes, since NumPy has no bfloat16
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the metadata of a safetensors file.

    Metadata of other programs that is not JSON is returned as text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not complete, or a tensor does not match its digest. (Files of other programs and of
            earlier versions have no digests.)
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


def decode_metadata(path: Path, name: str, text: str) -> Any:
    """Returns the value of a metadata text, or the text itself where it is not JSON.

    Raises:
        ValueError: The text is JSON that Python cannot read.
    """
    try:
        return decode_json(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its metadata {name} cannot be read: {error}") from error


def check_digests(path: Path, tensors: Mapping[str, Tensor], digests: Any) -> None:
    """Refuses tensors that do not match their digests.

    Raises:
        ValueError: A tensor differs, or the digests are of other tensors.
    """
    if not isinstance(digests, dict) or digests.keys() != tensors.keys():
        raise ValueError(f"{path} is damaged: its digests are not those of its tensors")
    for name, tensor in tensors.items():
        if digests[name] != tensor_digest(tensor):
            raise ValueError(f"{path} is damaged: {name} does not fit its digest")


def has_digests(path: Path) -> bool:
    """Returns whether a tensor file holds digests, so that damage to its tensors can be seen."""
    with safetensors.safe_open(path, framework="pt") as file:
        return DIGESTS in (file.metadata() or {})


# Writing in one step


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces ``path`` at the end of the block, or is removed on an error.

    Raises:
        FolderReplacedError: ``path`` is in a folder that was replaced after this process had claimed it.
        OSError: The file cannot be written, for example because the disk is full; the message names ``path``.
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
        if os.name == "posix":  # other systems cannot open folders
            with naming(path):
                flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds ``path`` to operating-system errors that name no file, or only a temporary one that no longer exists."""
    try:
        yield
    except OSError as error:
        is_temporary = Path(str(error.filename)).name.startswith(f".{path.stem}-")
        if error.errno is None or not (error.filename is None or is_temporary):
            raise
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror}") from error


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk, so that a power cut cannot lose it.

    Returns at once if the file system cannot flush.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync(handle: int) -> None:
    """Calls ``os.fsync`` for an open file or folder if the file system supports it."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in FLUSH_UNSUPPORTED:
            raise


def current_umask() -> int:
    """Returns the permissions that this process withholds from new files."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def remove_leftovers(path: Path, seconds: float = 0.0) -> None:
    """Removes temporary files that were left when a process was killed while it wrote ``path``.

    Args:
        path: The file.
        seconds: The age from which a temporary file is a leftover; above 0 if another process may be writing.
    """
    latest = time.time() - seconds
    # Matches the names that tempfile makes for this path. The glob also finds temporary files of other paths.
    temporary_name = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}-*{path.suffix}"):
        if not temporary_name.fullmatch(leftover.name):
            continue
        with suppress(FileNotFoundError):  # another process has just replaced or removed it
            if not seconds or leftover.stat().st_mtime < latest:
                leftover.unlink()


# Claiming folders


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Claims the folder for this process, until the block ends or the process is killed.

    If the folder is removed or replaced during the block, ``replacing`` no longer writes into it.

    Raises:
        BlockingIOError: Another run has claimed the folder.
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
    """Makes ``replacing`` refuse to write into the folder after it was removed or replaced, until the block ends.

    The claim may be this process's, or that of another process of its group.
    """
    path, lock = Path(os.path.abspath(folder)), lock_identity(folder)
    outer = CLAIMS.get(path)
    if lock is not None:
        CLAIMS[path] = lock
    try:
        yield
    finally:
        CLAIMS.pop(path, None)
        if outer is not None:
            CLAIMS[path] = outer


def require_claim(path: Path) -> None:
    """Refuses to write to ``path`` if it is in a claimed folder that was removed or replaced.

    Raises:
        FolderReplacedError: The folder is not the claimed one.
    """
    for folder in Path(os.path.abspath(path)).parents:
        if folder in CLAIMS and CLAIMS[folder] != lock_identity(folder):
            raise FolderReplacedError(
                f"{folder} was removed or replaced while this run was at work in it, so {path.name} is not written; "
                "start this run again, in another folder if another run uses this one"
            )


def lock_identity(folder: Path) -> tuple[int, int] | None:
    """Returns device and inode of the folder's lock file; None if there is none."""
    try:
        status = (folder / LOCK).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


# Checks of existing files


def require_file(path: Path) -> None:
    """Refuses a path that is not a file.

    Raises:
        FileNotFoundError: The path is missing, or is a folder.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing" if not path.exists() else f"{path} is not a file")


def require_same(path: Path, stored: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuses to resume from a file of a run with other settings.

    Args:
        path: The file, for the error.
        stored: The settings in the file.
        expected: The settings of this run.

    Raises:
        ValueError: The settings differ; the message says where.
    """
    differing = [name for name in {**stored, **expected} if stored.get(name) != expected.get(name)]
    if differing:
        differences = "; ".join(difference(name, stored.get(name), expected.get(name)) for name in differing)
        raise ValueError(f"{path} belongs to another run: {differences}. {ANOTHER_FOLDER}")


def require_empty(path: Path, outputs: Iterable[Path]) -> None:
    """Refuses a folder that holds outputs of a run, but not the file that identifies the run.

    Args:
        path: The identifying file, which is missing.
        outputs: Files and folders that a run writes beside it.

    Raises:
        ValueError: One of the outputs exists.
    """
    for output in outputs:
        if output.exists():
            raise ValueError(
                f"{path.parent} holds {output.name} and no {path.name}, which would say what it belongs to. "
                f"{ANOTHER_FOLDER}"
            )


def difference(name: str, stored: Any, current: Any) -> str:
    """Returns in words how a stored value differs from this run's current one."""
    if isinstance(stored, dict) and isinstance(current, dict):
        differing = [key for key in {**stored, **current} if stored.get(key) != current.get(key)]
        return "; ".join(difference(f"{name}.{key}", stored.get(key), current.get(key)) for key in differing)
    text = f"{name} is {stored!r} there and {current!r} here"
    return text if len(text) < MAX_DIFFERENCE_LENGTH else f"{name} differs"
