"""CIFAR-10: both layouts, their damaged files, and the download."""

import hashlib
import pickle
import shutil
import sys
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch

from neuroae.data import load_dataset
from neuroae.data.datasets import BINARY_FILES, BINARY_FOLDER, FILE_RECORDS, MD5_SUMS, PICKLED_FOLDER, RECORD_BYTES
from shared_data import SHARED, existing, load_module


def records(count: int, seed: int = 0) -> np.ndarray:
    """Random images with labels 0 to 9, in the binary version's layout."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(256, size=(count, RECORD_BYTES), dtype=np.uint8)
    drawn[:, 0] %= 10
    return drawn


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    """Holds 7 test images, and no training images."""
    folder = tmp_path / BINARY_FOLDER
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(records(7, seed=1).tobytes())
    return tmp_path


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training file whose images are all alike."""
    path = tmp_path_factory.mktemp("alike") / "data_batch.bin"
    path.write_bytes(records(1).tobytes() * FILE_RECORDS)
    return path


@pytest.fixture
def training_folder(cifar10_folder: Path, alike: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also holds links to a training set, whose MD5 sums are accepted as the official ones."""
    digest = hashlib.md5(alike.read_bytes()).hexdigest()
    for name in BINARY_FILES["train"]:
        (cifar10_folder / BINARY_FOLDER / name).symlink_to(alike)
        monkeypatch.setitem(MD5_SUMS, name, digest)
    return cifar10_folder


def test_binary_test_images_are_read_as_written(cifar10_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = records(7, seed=1)
    for folder in (cifar10_folder, str(cifar10_folder), cifar10_folder / BINARY_FOLDER):
        test = load_dataset("cifar10", "test", folder)
        assert test.labels.tolist() == expected[:, 0].tolist()
        assert test.images.flatten(1).numpy().tobytes() == expected[:, 1:].tobytes()
        assert capsys.readouterr().err.splitlines() == [
            f"{cifar10_folder / BINARY_FOLDER / 'test_batch.bin'} holds 7 of the 10,000 test images"
        ]


def test_binary_training_images_are_read_as_written(training_folder: Path) -> None:
    train = load_dataset("cifar10", "train", training_folder)
    assert train.images.shape == (50_000, 3, 32, 32)
    assert bool((train.images.flatten(1) == torch.from_numpy(records(1)[:, 1:])).all())


@pytest.mark.parametrize("size", [0, 1, RECORD_BYTES - 1, 3 * RECORD_BYTES + 5, (FILE_RECORDS + 1) * RECORD_BYTES])
def test_a_test_file_of_odd_length_is_named(cifar10_folder: Path, size: int) -> None:
    path = cifar10_folder / BINARY_FOLDER / "test_batch.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"test_batch\.bin is {size:,} bytes, expected at most 30,730,000"):
        load_dataset("cifar10", "test", cifar10_folder)


def test_a_short_training_file_is_named(training_folder: Path) -> None:
    path = training_folder / BINARY_FOLDER / "data_batch_3.bin"
    path.unlink()
    path.write_bytes(records(9).tobytes())
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is 27,657 bytes, expected 30,730,000"):
        load_dataset("cifar10", "train", training_folder)


def test_a_training_file_that_is_not_the_official_one_is_named(training_folder: Path) -> None:
    path = training_folder / BINARY_FOLDER / "data_batch_4.bin"
    content = bytearray(path.read_bytes())
    content[2_000_000] ^= 1
    path.unlink()
    path.write_bytes(content)
    actual, expected = hashlib.md5(content).hexdigest(), MD5_SUMS[path.name]
    with pytest.raises(
        ValueError, match=rf"data_batch_4\.bin is damaged: its MD5 sum is {actual}, expected {expected}"
    ):
        load_dataset("cifar10", "train", training_folder)


def test_the_official_training_files_pass(tmp_path: Path) -> None:
    unpack = load_module(existing(SHARED / "data" / "unpack.py"))
    labels = np.load(existing(SHARED / "data" / "cifar10" / "labels.npz"))
    for name in BINARY_FILES["train"]:
        (tmp_path / name).write_bytes(unpack.records(Path(name).stem, labels[Path(name).stem]))
    train = load_dataset("cifar10", "train", tmp_path)
    assert train.images.shape == (50_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10


def test_a_missing_file_is_named(training_folder: Path) -> None:
    (training_folder / BINARY_FOLDER / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2\.bin is missing"):
        load_dataset("cifar10", "train", training_folder)


def test_an_impossible_label_is_named(cifar10_folder: Path) -> None:
    damaged = records(7)
    damaged[4, 0] = 77
    (cifar10_folder / BINARY_FOLDER / "test_batch.bin").write_bytes(damaged.tobytes())
    with pytest.raises(ValueError, match=r"test_batch\.bin is damaged: record 4 has label 77"):
        load_dataset("cifar10", "test", cifar10_folder)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither cifar-10-batches-bin nor cifar-10-batches-py"):
        load_dataset("cifar10", "test", tmp_path)


def pickled_batch(path: Path, count: int) -> np.ndarray:
    drawn = records(count)
    with path.open("wb") as file:
        pickle.dump({"data": drawn[:, 1:], "labels": drawn[:, 0].tolist()}, file)
    return drawn


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_torchvision_folder(parent: Path) -> np.ndarray:
    """Writes torchvision's layout with one test file, and returns its records."""
    folder = parent / PICKLED_FOLDER
    folder.mkdir()
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": [str(number) for number in range(10)]}, file)
    return pickled_batch(folder / "test_batch", 5)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Makes torchvision accept the files of ``write_torchvision_folder`` as the official ones."""
    datasets = pytest.importorskip("torchvision.datasets")
    (tmp_path / "model").mkdir()
    write_torchvision_folder(tmp_path / "model")
    digests = {path.name: md5(path) for path in (tmp_path / "model" / PICKLED_FOLDER).iterdir()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": digests["batches.meta"]})
    return datasets


def test_torchvision_layout_is_read(tmp_path: Path, datasets: ModuleType) -> None:
    expected = write_torchvision_folder(tmp_path)
    for folder in (tmp_path, tmp_path / PICKLED_FOLDER):
        test = load_dataset("cifar10", "test", folder)
        assert test.labels.tolist() == expected[:, 0].tolist()
        assert test.images.flatten(1).numpy().tobytes() == expected[:, 1:].tobytes()


def test_torchvisions_folder_may_be_the_one_where_we_are(
    tmp_path: Path, datasets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision_folder(tmp_path)
    monkeypatch.chdir(tmp_path / PICKLED_FOLDER)
    assert len(load_dataset("cifar10", "test", ".")) == 5


def test_foreign_pickles_are_refused_before_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision.datasets")
    write_torchvision_folder(tmp_path)

    def opened(*arguments: object, **settings: object) -> None:
        pytest.fail("a file that is not the official one was unpickled")

    monkeypatch.setattr(pickle, "load", opened)
    for number in range(1, 6):
        (tmp_path / PICKLED_FOLDER / f"data_batch_{number}").write_bytes(b"foreign")
    with pytest.raises(ValueError, match=r"cifar-10-batches-py/data_batch_1 is damaged: its MD5 sum is"):
        load_dataset("cifar10", "test", tmp_path)


@pytest.fixture
def downloads(tmp_path: Path, datasets: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns the folders that torchvision downloaded into; its downloader is replaced by a copy."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    folders: list[Path] = []

    def copied(url: str, root: str | Path, **settings: object) -> None:
        folders.append(Path(root))
        shutil.copytree(tmp_path / "model", root, dirs_exist_ok=True)

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", copied)
    return folders


def test_download_happens_once_and_where_it_was_asked_for(tmp_path: Path, downloads: list[Path]) -> None:
    folder = tmp_path / "new" / "data"
    with pytest.raises(FileNotFoundError, match="holds neither"):
        load_dataset("cifar10", "test", folder)
    assert downloads == []
    for _ in range(2):
        assert len(load_dataset("cifar10", "test", folder, download=True)) == 5
    assert downloads == [folder]


def test_download_mends_a_damaged_folder(tmp_path: Path, downloads: list[Path]) -> None:
    expected = write_torchvision_folder(tmp_path)
    (tmp_path / PICKLED_FOLDER / "test_batch").write_bytes(b"damaged")
    test = load_dataset("cifar10", "test", tmp_path, download=True)
    assert downloads == [tmp_path]
    assert test.labels.tolist() == expected[:, 0].tolist()


def test_what_is_there_is_not_downloaded(cifar10_folder: Path, downloads: list[Path]) -> None:
    assert len(load_dataset("cifar10", "test", cifar10_folder, download=True)) == 7
    assert downloads == []


@pytest.mark.parametrize(
    "failure", [URLError("no route to host"), RuntimeError("File not found or corrupted.")], ids=["network", "archive"]
)
def test_a_download_that_fails_names_the_folder(
    tmp_path: Path, downloads: list[Path], datasets: ModuleType, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def failing(*arguments: object, **settings: object) -> None:
        raise failure

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", failing)
    with pytest.raises(OSError, match=rf"cifar10 could not be downloaded into {tmp_path / 'data'}: .*({failure})"):
        load_dataset("cifar10", "test", tmp_path / "data", download=True)


@pytest.mark.parametrize("name", ["test_batch", "batches.meta"])
def test_a_damaged_or_missing_file_of_torchvisions_layout_is_named(
    tmp_path: Path, datasets: ModuleType, name: str
) -> None:
    write_torchvision_folder(tmp_path)
    path = tmp_path / PICKLED_FOLDER / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        load_dataset("cifar10", "test", tmp_path / PICKLED_FOLDER)
    if name == "batches.meta":
        path.unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing"):
            load_dataset("cifar10", "test", tmp_path)


def test_each_split_is_taken_from_the_folder_that_has_it(
    cifar10_folder: Path, datasets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binary version has only test images, and torchvision's version beside it only training images."""
    write_torchvision_folder(cifar10_folder)
    folder = cifar10_folder / PICKLED_FOLDER
    (folder / "test_batch").rename(folder / "data_batch_1")
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5(folder / "data_batch_1")]])
    assert len(load_dataset("cifar10", "test", cifar10_folder)) == 7
    assert len(load_dataset("cifar10", "train", cifar10_folder)) == 5


def test_without_torchvision_the_error_says_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        ImportError, match="cifar-10-batches-py needs torchvision, which is not installed: pip install"
    ):
        load_dataset("cifar10", "test", tmp_path, download=True)
