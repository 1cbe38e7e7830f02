"""Data sets, their damaged files, and augmentation."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroae.data import ImageSet, crop_and_flip, load_dataset
from neuroae.data.cifar10 import BINARY_FOLDER, FILES, PYTHON_FOLDER, RECORD_BYTES, RECORDS


def records(count: int, seed: int = 0) -> np.ndarray:
    """Random images with labels 0 to 9, in the binary version's layout."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(256, size=(count, RECORD_BYTES), dtype=np.uint8)
    drawn[:, 0] %= 10
    return drawn


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    """A whole training set, all of it alike, and 7 test images."""
    folder = tmp_path / BINARY_FOLDER
    folder.mkdir()
    for name in FILES["train"]:
        (folder / name).write_bytes(records(1).tobytes() * RECORDS)
    (folder / "test_batch.bin").write_bytes(records(7, seed=1).tobytes())
    return tmp_path


def test_digits_are_real_and_split_apart() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (len(train), len(test)) == (1297, 500)
    assert train.images.shape[1:] == (1, 8, 8)
    assert float(train.pixels().max()) == 1.0
    assert torch.unique(test.labels).tolist() == list(range(10))
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)


def test_binary_cifar10_is_read_as_written(cifar10_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = records(7, seed=1)
    for folder in (cifar10_folder, cifar10_folder / BINARY_FOLDER):
        test = load_dataset("cifar10", "test", folder)
        assert test.labels.tolist() == expected[:, 0].tolist()
        assert test.images.flatten(1).numpy().tobytes() == expected[:, 1:].tobytes()
        assert capsys.readouterr().err.splitlines() == [
            f"{cifar10_folder / BINARY_FOLDER / 'test_batch.bin'} holds 7 of the 10,000 test images"
        ]
    assert load_dataset("cifar10", "train", cifar10_folder).images.shape == (50_000, 3, 32, 32)


@pytest.mark.parametrize("size", [0, 1, RECORD_BYTES - 1, 3 * RECORD_BYTES + 5, (RECORDS + 1) * RECORD_BYTES])
def test_a_test_file_of_odd_length_is_named(cifar10_folder: Path, size: int) -> None:
    path = cifar10_folder / BINARY_FOLDER / "test_batch.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"test_batch\.bin is {size:,} bytes, expected at most 30,730,000"):
        load_dataset("cifar10", "test", cifar10_folder)


def test_a_short_training_file_is_named(cifar10_folder: Path) -> None:
    (cifar10_folder / BINARY_FOLDER / "data_batch_3.bin").write_bytes(records(9).tobytes())
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is 27,657 bytes, expected 30,730,000"):
        load_dataset("cifar10", "train", cifar10_folder)


def test_a_missing_file_is_named(cifar10_folder: Path) -> None:
    (cifar10_folder / BINARY_FOLDER / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2\.bin is missing"):
        load_dataset("cifar10", "train", cifar10_folder)


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


def write_torchvision_folder(parent: Path) -> np.ndarray:
    """torchvision's layout with one test file; returns its records."""
    folder = parent / PYTHON_FOLDER
    folder.mkdir()
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": [str(number) for number in range(10)]}, file)
    return pickled_batch(folder / "test_batch", 5)


def test_torchvision_layout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    expected = write_torchvision_folder(tmp_path)
    digests = {
        name: hashlib.md5((tmp_path / PYTHON_FOLDER / name).read_bytes()).hexdigest()
        for name in ("batches.meta", "test_batch")
    }
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": digests["batches.meta"]})
    for folder in (tmp_path, tmp_path / PYTHON_FOLDER):
        test = load_dataset("cifar10", "test", folder)
        assert test.labels.tolist() == expected[:, 0].tolist()
        assert test.images.flatten(1).numpy().tobytes() == expected[:, 1:].tobytes()


def test_foreign_pickles_are_refused_before_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision.datasets")
    write_torchvision_folder(tmp_path)

    def opened(*arguments: object, **settings: object) -> None:
        pytest.fail("a file that is not the official one was unpickled")

    monkeypatch.setattr(pickle, "load", opened)
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is incomplete or damaged"):
        load_dataset("cifar10", "test", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet", "train"), "dataset is 'imagenet'"),
        (("digits", "validation"), "split is 'validation'"),
        (("cifar10", "train"), "cifar10 needs data_dir"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(*arguments)


def test_image_sets_keep_ids_and_tell_their_contents_apart() -> None:
    data = load_dataset("digits", "test")
    some = data.take(torch.tensor([5, 2]))
    assert some.ids.tolist() == [5, 2]
    assert torch.equal(some.images, data.images[[5, 2]])
    assert some.fingerprint() == data.take(torch.tensor([5, 2])).fingerprint()
    assert some.fingerprint() != data.take(torch.tensor([2, 5])).fingerprint()


def test_image_sets_refuse_what_does_not_fit() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"expected uint8"):
        ImageSet("some", images.float(), torch.zeros(3), torch.arange(3), ("a",))
    with pytest.raises(ValueError, match="images, labels and ids hold 3, 2 and 3"):
        ImageSet("some", images, torch.zeros(2), torch.arange(3), ("a",))


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
    padding=st.integers(0, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_augmentation_follows_seed_epoch_and_id_alone(
    seed: int, epoch: int, padding: int, height: int, width: int
) -> None:
    images, ids = torch.rand(5, 2, height, width), torch.tensor([4, 9, 0, 2**32 - 1, 7])
    whole = crop_and_flip(images, seed, epoch, ids, padding)
    assert whole.shape == images.shape
    for position in range(5):
        alone = crop_and_flip(images[position : position + 1], seed, epoch, ids[position : position + 1], padding)
        assert torch.equal(alone[0], whole[position])


def test_augmentation_gives_every_crop_and_both_mirror_images() -> None:
    """Pixels numbered from 1 show which crop it was; zeros are the padding."""
    image = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    padded = torch.nn.functional.pad(image, [1] * 4)
    crops = {
        tuple(view[0, 0, row : row + 4, column : column + 4].flatten().tolist())
        for view in (padded, padded.flip(3))
        for row in range(3)
        for column in range(3)
    }
    ids = torch.arange(500)
    found = crop_and_flip(image.expand(500, 1, 4, 4), 0, 0, ids, padding=1)
    assert {tuple(one.flatten().tolist()) for one in found} == crops
    assert not torch.equal(found, crop_and_flip(image.expand(500, 1, 4, 4), 0, 1, ids, padding=1))


def test_augmentation_keeps_bytes() -> None:
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    found = crop_and_flip(images, 0, 0, torch.arange(3), padding=0)
    assert found.dtype == torch.uint8
    for before, after in zip(images, found, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))
