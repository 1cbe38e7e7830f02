"""Files are written completely or not at all, and folders have one run at a time."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from neuroae.evaluation.folder import append_lines
from neuroae.utils.files import (
    claimed,
    has_digests,
    load_json,
    load_tensors,
    remove_leftovers,
    replacing,
    save_json,
    save_tensors,
)


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.randint(256, (3, 4), dtype=torch.uint8),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "empty": torch.empty(0, 3),
    }
    metadata = {"number": 3, "list": [1.5, None], "text": "three"}
    path = tmp_path / "new" / "file.safetensors"
    save_tensors(path, tensors, metadata)
    loaded, notes = load_tensors(path)
    assert notes == metadata
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


NUMBERS = {
    "decoder.weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(4, dtype=torch.bfloat16),
    "steps": torch.tensor(3),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_flipped_bit_is_noticed_and_the_tensor_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, NUMBERS, {"note": 1})
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, end = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    for place in (start, end - 1):
        content[8 + length + place] ^= 4
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"file\.safetensors is damaged: {name} does not fit its digest"):
            load_tensors(path)
        content[8 + length + place] ^= 4
    path.write_bytes(content)
    assert torch.equal(load_tensors(path)[0][name], NUMBERS[name])


@pytest.mark.parametrize(
    ("before", "after"),
    [(b'"F32","shape":[2,3]', b'"F32","shape":[3,2]'), (b'"half":{', b'"half_":{'), (b'"BF16"', b'"F16"')],
    ids=["shape", "name", "dtype"],
)
def test_a_changed_header_is_noticed(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, NUMBERS)
    content = path.read_bytes()
    assert content.count(before) == 1
    length = int.from_bytes(content[:8], "little")
    changed = content[8 : 8 + length].replace(before, after)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(ValueError, match=r"file\.safetensors is damaged: "):
        load_tensors(path)


def test_files_of_other_writers_have_no_digests(tmp_path: Path) -> None:
    safetensors.torch.save_file(NUMBERS, tmp_path / "other.safetensors", {"format": "pt"})
    save_tensors(tmp_path / "own.safetensors", NUMBERS)
    assert load_tensors(tmp_path / "other.safetensors")[1] == {"format": "pt"}
    assert not has_digests(tmp_path / "other.safetensors")
    assert has_digests(tmp_path / "own.safetensors")


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """The library orders metadata by a hash that differs from process to process."""
    program = "import sys, torch; from pathlib import Path; from neuroae.utils.files import save_tensors\n"
    program += "save_tensors(Path(sys.argv[1]), {'a': torch.zeros(2)}, {str(number): 'some' for number in range(9)})"
    contents = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", program, path], check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("existing", [True, False])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "file.json"
    if existing:
        save_json(path, {"old": True})

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text('{"half')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert load_json(path) == {"old": True}


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path: Path) -> None:
    """A limit on the length of files acts as a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "file.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=rf"{path} cannot be written: .*"):
            save_tensors(path, {"large": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


DEEP = "[" * 200_000 + "]" * 200_000
LONG = "[" + "9" * 5_000 + "]"


@pytest.mark.parametrize("text", [DEEP, LONG, "{", "\ud800"], ids=["deep", "a long number", "half", "no text"])
def test_json_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ValueError, match=rf"{tmp_path}/file\.json is not a JSON file: "):
        load_json(tmp_path / "file.json")


@pytest.mark.parametrize("text", [DEEP, LONG], ids=["deep", "a long number"])
def test_metadata_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.safetensors"
    safetensors.torch.save_file({"some": torch.zeros(2)}, path, {"note": text})
    with pytest.raises(ValueError, match=rf"{path} is damaged: its metadata note cannot be read: "):
        load_tensors(path)


WRITERS = {
    "JSON": lambda path: save_json(path, "some text" * 10_000),
    "tensors": lambda path: save_tensors(path, {"large": torch.zeros(10_000)}),
    "lines": lambda path: append_lines(path, [{"some": "text" * 10_000}]),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_whatever_is_written(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=rf"{tmp_path}/some\.file cannot be written: File too large") as caught:
            write(tmp_path / "some.file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_system_that_flushes_nothing_is_written_to(
    tmp_path: Path, write: Callable[[Path], None], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "some.file")
    assert [path.name for path in tmp_path.iterdir()] == ["some.file"]
    assert (tmp_path / "some.file").stat().st_size > 10_000


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_disk_that_fails_is_an_error_that_names_the_file(
    tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=rf"{tmp_path}/some\.file cannot be written: Input/output error"):
        write(tmp_path / "some.file")


def test_a_folder_that_takes_no_files_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkstemp(prefix: str, suffix: str, dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / f"{prefix}abcd1234{suffix}"))

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    with pytest.raises(PermissionError, match=rf"{tmp_path}/some\.json cannot be written: Permission denied"):
        save_json(tmp_path / "some.json", 1)


def test_an_error_about_another_file_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file .*nowhere'"), replacing(tmp_path / "a"):
        (tmp_path / "nowhere").read_bytes()


def test_tensors_that_share_memory_are_written_each_by_itself(tmp_path: Path) -> None:
    numbers = torch.arange(6.0)
    save_tensors(tmp_path / "file.safetensors", {"whole": numbers, "same": numbers, "part": numbers[2:4]})
    loaded, _ = load_tensors(tmp_path / "file.safetensors")
    assert torch.equal(loaded["same"], numbers)
    assert torch.equal(loaded["part"], numbers[2:4])


def test_leftovers_of_other_files_stay(tmp_path: Path) -> None:
    leftover, other = tmp_path / ".atoms-ab_cd123.safetensors", tmp_path / ".atoms-large-abcd1234.safetensors"
    for path in (leftover, other):
        path.touch()
    remove_leftovers(tmp_path / "atoms.safetensors")
    assert list(tmp_path.iterdir()) == [other]


def test_a_value_that_json_does_not_hold_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    save_json(path, [1])
    with pytest.raises(TypeError):
        save_json(path, object())
    assert load_json(path) == [1]


def test_files_are_readable_as_any_other(tmp_path: Path) -> None:
    save_json(tmp_path / "ours.json", 1)
    (tmp_path / "other.json").write_text("1")
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "other.json").stat().st_mode


@pytest.mark.parametrize("load", [load_json, load_tensors])
def test_what_is_not_a_file_is_named(tmp_path: Path, load) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load(tmp_path)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match=r"another run is at work in .*run: wait"), claimed(tmp_path / "run"):
            pass
        with claimed(tmp_path / "other"):
            pass
    with claimed(tmp_path / "run"):
        pass


def test_a_claim_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from neuroae.utils.files import claimed\n"
    program += "with claimed(Path(sys.argv[1])): print('claimed', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(BlockingIOError), claimed(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with claimed(tmp_path):
            pass


def test_a_kill_while_tensors_are_written_leaves_nothing_that_is_not_removed(tmp_path: Path) -> None:
    """Every temporary name that appears during a write is one that ``remove_leftovers`` removes."""
    path, names = tmp_path / "some.safetensors", set[str]()
    with watched(tmp_path, names):
        for _ in range(5):
            save_tensors(path, {"numbers": torch.zeros(2_000_000)})
    for name in names - {path.name}:
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


@contextmanager
def watched(folder: Path, names: set[str]) -> Iterator[None]:
    """Collects the names of all files that exist at some time during the block."""
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            names.update(os.listdir(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        end.set()
        watcher.join()
