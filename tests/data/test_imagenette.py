"""Imagenette: its classes, its download, and the real images if they lie beside the project."""

import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from neuroae.data import load_dataset
from shared_data import SHARED, existing

datasets = pytest.importorskip("torchvision.datasets")
FOLDER = "imagenette2-160"
NAMES = {
    "n03888257": "parachute",
    "n03445777": "golf ball",
    "n03425413": "gas pump",
    "n03417042": "garbage truck",
    "n03394916": "French horn",
    "n03028079": "church",
    "n03000684": "chain saw",
    "n02979186": "cassette player",
    "n02102040": "English springer",
    "n01440764": "tench",
}


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))


def write_imagenette(parent: Path) -> None:
    """Writes a gray image for each class and split; the gray level is the class's number."""
    for split in ("train", "val"):
        for number, folder in enumerate(NAMES):
            path = parent / FOLDER / split / folder / "image.JPEG"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (160, 160), (20 * number,) * 3).save(path)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("inside", [True, False], ids=["the-folder", "its-parent"])
def test_classes_have_readable_names(tmp_path: Path, split: str, inside: bool) -> None:
    write_imagenette(tmp_path)
    data = load_dataset("imagenette", split, tmp_path / FOLDER if inside else tmp_path)
    assert data.name == f"imagenette {split}"
    assert data.images.shape == (10, 3, 160, 160)
    names = list(NAMES.values())
    grays = {data.classes[label]: int(image[0, 0, 0]) for image, label in zip(data.images, data.labels, strict=True)}
    assert grays == {name: pytest.approx(20 * names.index(name), abs=1) for name in names}


def test_names_are_torchvisions() -> None:
    torchvision_names = datasets.Imagenette._WNID_TO_CLASS
    assert {folder: names[0] for folder, names in torchvision_names.items()} == NAMES


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_classes_are_named(tmp_path: Path, split: str) -> None:
    write_imagenette(tmp_path)
    folder = tmp_path / FOLDER / split
    (folder / "n03888257").rename(folder / "n02086240")
    message = f"{split} does not have the class folders of Imagenette: it lacks n03888257 and has in excess n02086240"
    with pytest.raises(ValueError, match=message):
        load_dataset("imagenette", "train", tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"data neither holds nor is {FOLDER}"):
        load_dataset("imagenette", "train", tmp_path / "data")


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the archives that torchvision downloaded; its downloader is replaced by a copy."""
    write_imagenette(tmp_path / "archive")
    archives: list[str] = []

    def copied(url: str, root: str | Path, **settings: object) -> None:
        archives.append(url.rpartition("/")[2])
        shutil.copytree(tmp_path / "archive", root, dirs_exist_ok=True)

    monkeypatch.setattr(datasets.imagenette, "download_and_extract_archive", copied)
    return archives


def test_download_happens_once(tmp_path: Path, downloads: list[str]) -> None:
    folder = tmp_path / "new" / "data"
    for split in ("train", "test"):
        assert len(load_dataset("imagenette", split, folder, download=True)) == 10
    assert downloads == [f"{FOLDER}.tgz"]
    assert [path.name for path in folder.iterdir()] == [FOLDER]


@pytest.mark.parametrize("inside", [True, False], ids=["the-folder", "its-parent"])
def test_what_is_there_is_not_downloaded(tmp_path: Path, downloads: list[str], inside: bool) -> None:
    write_imagenette(tmp_path)
    folder = tmp_path / FOLDER if inside else tmp_path
    assert len(load_dataset("imagenette", "test", folder, download=True)) == 10
    assert downloads == []


def test_a_download_that_stops_half_way_leaves_nothing_to_be_taken_for_the_whole(
    tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(url: str, root: str | Path, **settings: object) -> None:
        shutil.copytree(tmp_path / "archive" / FOLDER / "train", Path(root) / FOLDER / "train")
        raise URLError("connection reset")

    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(datasets.imagenette, "download_and_extract_archive", stopping)
        with pytest.raises(OSError, match=f"imagenette could not be downloaded into {folder}: .*connection reset"):
            load_dataset("imagenette", "train", folder, download=True)
    assert list(folder.iterdir()) == []
    assert len(load_dataset("imagenette", "test", folder, download=True)) == 10


@pytest.mark.parametrize(("split", "images"), [("train", "train"), ("test", "val")])
def test_real_images_are_those_of_their_files(tmp_path: Path, split: str, images: str) -> None:
    real = existing(SHARED / "data" / FOLDER)
    for name in ("train", "val"):
        for folder in NAMES:
            (tmp_path / name / folder).mkdir(parents=True)
            for path in sorted((real / name / folder).iterdir())[:3]:
                (tmp_path / name / folder / path.name).symlink_to(path)
    data = load_dataset("imagenette", split, tmp_path)
    paths = sorted((tmp_path / images).glob("*/*"))
    assert [data.classes[label] for label in data.labels] == [NAMES[path.parent.name] for path in paths]
    for image, path in zip(data.images, paths, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path).convert("RGB")))
