"""Arrays in the cache folder: computed once, complete, and not changed by writes to the mapped array."""

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
    """Yields rows, of which row i holds the number i, and counts them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.num_made = 0
        self.seconds = seconds

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(SHAPE[0]):
            time.sleep(self.seconds)
            self.num_made += 1
            yield np.full(SHAPE[1:], number, np.uint8)


EXPECTED = np.stack(list(Rows()))


def test_rows_are_made_once(folder: Path) -> None:
    rows = Rows()
    for _ in range(2):
        actual = cached_array("some", SHAPE, rows)
        assert actual.dtype == np.uint8
        assert np.array_equal(actual, EXPECTED)
    assert rows.num_made == len(EXPECTED)
    assert (folder / "some.npy").exists()


def test_writing_to_a_map_leaves_the_file_alone(folder: Path) -> None:
    cached_array("some", SHAPE, Rows())[:] = 77
    assert np.array_equal(cached_array("some", SHAPE, Rows()), EXPECTED)


def test_two_that_ask_at_once_share_one_making(folder: Path) -> None:
    rows = Rows(seconds=0.02)
    with ThreadPoolExecutor(2) as pool:
        for actual in pool.map(lambda _: cached_array("some", SHAPE, rows), range(2)):
            assert np.array_equal(actual, EXPECTED)
    assert rows.num_made == len(EXPECTED)


def test_rows_that_fail_leave_no_file(folder: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield EXPECTED[0]
        raise ValueError("the second image is damaged")

    with pytest.raises(ValueError, match="the second image is damaged"):
        cached_array("some", SHAPE, failing())
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_a_full_disk_is_an_error_that_names_the_file(folder: Path) -> None:
    """A limit on the size of files acts as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    megabyte = np.zeros((1, 1024, 1024), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))
    try:
        with pytest.raises(OSError, match=r"some\.npy cannot be written: .*; set NEUROAE_CACHE to use another folder"):
            cached_array("some", (5, 1, 1024, 1024), [megabyte] * 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_a_cache_folder_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"file/some\.npy cannot be written: .*; set NEUROAE_CACHE to"):
        cached_array("some", SHAPE, Rows())


@pytest.mark.parametrize("length", [0, 5, 100, 200])
def test_a_truncated_file_is_made_again(folder: Path, length: int, capsys: pytest.CaptureFixture[str]) -> None:
    cached_array("some", SHAPE, Rows())
    path = folder / "some.npy"
    path.write_bytes(path.read_bytes()[:length])
    assert np.array_equal(cached_array("some", SHAPE, Rows()), EXPECTED)
    assert f"replacing the damaged file {path}" in capsys.readouterr().err
    assert np.array_equal(np.load(path), EXPECTED)


@pytest.mark.parametrize(
    "other",
    [
        EXPECTED[:4],
        EXPECTED.astype(np.int8),
        EXPECTED.transpose(0, 2, 3, 1),
        np.asfortranarray(EXPECTED),
        np.array({}),
    ],
    ids=["too short", "of another type", "of another shape", "in another order", "a pickle"],
)
def test_another_array_is_made_again(folder: Path, other: np.ndarray) -> None:
    folder.mkdir()
    np.save(folder / "some.npy", other)
    actual = cached_array("some", SHAPE, Rows())
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, EXPECTED)


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
