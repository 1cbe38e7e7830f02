"""Arrays in the cache folder: made once, whole, and safe from what is done to them in memory."""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from neuroae.data.cache import cache_folder, cached_array

SHAPE = (5, 3, 4, 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which does not exist yet."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Rows:
    """Row i is full of i; counts how many were asked for."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.made = 0
        self.seconds = seconds

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(SHAPE[0]):
            time.sleep(self.seconds)
            self.made += 1
            yield np.full(SHAPE[1:], number, np.uint8)


EXPECTED = np.stack(list(Rows()))


def test_rows_are_made_once(folder: Path) -> None:
    rows = Rows()
    for _ in range(2):
        found = cached_array("some", SHAPE, rows)
        assert found.dtype == np.uint8
        assert np.array_equal(found, EXPECTED)
    assert rows.made == len(EXPECTED)
    assert (folder / "some.npy").exists()


def test_writing_to_a_map_leaves_the_file_alone(folder: Path) -> None:
    cached_array("some", SHAPE, Rows())[:] = 77
    assert np.array_equal(cached_array("some", SHAPE, Rows()), EXPECTED)


def test_two_that_ask_at_once_share_one_making(folder: Path) -> None:
    rows = Rows(seconds=0.02)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: cached_array("some", SHAPE, rows), range(2)):
            assert np.array_equal(found, EXPECTED)
    assert rows.made == len(EXPECTED)


def test_rows_that_fail_leave_no_file(folder: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield EXPECTED[0]
        raise ValueError("the second image is damaged")

    with pytest.raises(ValueError, match="the second image is damaged"):
        cached_array("some", SHAPE, failing())
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_a_full_disk_is_an_error_that_names_the_file(folder: Path) -> None:
    """A limit on the size of files stands for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    megabyte = np.zeros((1, 1024, 1024), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))
    try:
        with pytest.raises(OSError, match=r"some\.npy cannot be written: .*; NEUROAE_CACHE may name another folder"):
            cached_array("some", (5, 1, 1024, 1024), [megabyte] * 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_a_cache_folder_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"file/some\.npy cannot be written: .*; NEUROAE_CACHE may name"):
        cached_array("some", SHAPE, Rows())


@pytest.mark.parametrize("kept", [0, 5, 100, 200])
def test_a_damaged_file_is_named(folder: Path, kept: int) -> None:
    cached_array("some", SHAPE, Rows())
    path = folder / "some.npy"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"some\.npy is damaged: .*; once it is deleted, it is made again"):
        cached_array("some", SHAPE, Rows())
    path.unlink()
    assert np.array_equal(cached_array("some", SHAPE, Rows()), EXPECTED)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({"NEUROAE_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}, "/mine", id="NEUROAE_CACHE"),
        pytest.param({"XDG_CACHE_HOME": "/xdg"}, "/xdg/neuroae", id="XDG_CACHE_HOME"),
        pytest.param({}, "/home/someone/.cache/neuroae", id="home"),
    ],
)
def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("NEUROAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/someone"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
