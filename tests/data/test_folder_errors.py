"""Errors in a folder of images, and the messages that name them."""

import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neuroae.data.folders import load_rgb
from photos import load, write_image, write_photos

pytest.importorskip("torchvision")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder that ``write_photos`` writes; the cache folder is empty."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def sixteen_bit_rgb() -> bytes:
    """A PNG of one pixel, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + 6))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), "truncated", id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), "cannot identify image file", id="empty"),
        pytest.param(lambda path: path.write_text("no image"), "cannot identify image file", id="text"),
        pytest.param(
            lambda path: Image.new("I;16", (9, 9)).save(path, "PNG"), "more than 8 bits a channel", id="16-bit"
        ),
        pytest.param(
            lambda path: path.write_bytes(sixteen_bit_rgb()), "more than 8 bits a channel", id="16-bit color"
        ),
    ],
)
def test_a_damaged_image_is_named(photos: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(photos / "train/dog/1.jpg")
    with pytest.raises(ValueError, match=rf"train/dog/1\.jpg cannot be read as an image: .*{message}"):
        load(photos)


def test_all_images_that_cannot_be_read_are_named_at_once(photos: Path) -> None:
    for name in ("cat/1.png", "dog/1.jpg"):
        (photos / "train" / name).write_text("no image")
    with pytest.raises(ValueError, match=r"cat/1\.png cannot be read.*\n.*dog/1\.jpg cannot be read as an image"):
        load(photos)


@pytest.mark.parametrize("size", [(1, 33), (400, 8), (1, 100_000)], ids=str)
def test_a_strip_of_pixels_is_refused_before_it_is_resized(photos: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(photos / "train/dog/0.png")
    message = rf"train/dog/0\.png cannot be read as an image: it is {size[0]:,} x {size[1]:,}, expected no side more"
    with pytest.raises(ValueError, match=message):
        load(photos)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(photos: Path) -> None:
    """The header says 12,000 x 10,000 pixels, and none follow."""
    (photos / "train/dog/0.ppm").write_bytes(b"P6 12000 10000 255 ")
    message = r"dog/0\.ppm cannot be read as an image: it is 12,000 x 10,000, expected at most 100,000,000 pixels"
    with pytest.raises(ValueError, match=message):
        load(photos)


def test_an_image_as_long_as_is_read(photos: Path) -> None:
    Image.new("RGB", (8, 256)).save(photos / "train/dog/0.png")
    assert len(load(photos)) == 5


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image in each of several formats."""
    folder = tmp_path_factory.mktemp("whole")
    for ending in ("jpg", "png", "webp", "bmp", "ppm"):
        write_image(folder / f"image.{ending}", 0)
    return folder


def pixels_or_message(path: Path) -> np.ndarray | str:
    try:
        return np.asarray(load_rgb(str(path)))
    except ValueError as error:
        return str(error)


@given(data=st.data())
def test_a_truncated_image_is_named_unless_all_pixels_are_left(intact: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(intact.glob("image.*"))), label="path")
    content = path.read_bytes()
    cut = intact / f"cut{path.suffix}"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="kept")])
    actual = pixels_or_message(cut)
    if isinstance(actual, str):
        assert actual.startswith(f"{cut} cannot be read as an image: ")
    else:
        assert np.array_equal(actual, pixels_or_message(path))


def test_a_missing_split_is_named(photos: Path) -> None:
    shutil.rmtree(photos / "val")
    assert len(load(photos, "train")) == 5
    with pytest.raises(FileNotFoundError, match="photos holds no folder named test or val"):
        load(photos, "test")


def test_a_folder_without_classes_is_named(photos: Path) -> None:
    shutil.rmtree(photos / "val")
    (photos / "val").mkdir()
    with pytest.raises(FileNotFoundError, match=r"class folder in .*photos/val"):
        load(photos, "test")


def test_an_empty_class_is_named(photos: Path) -> None:
    (photos / "train/dog/0.png").rename(photos / "train/dog/0.txt")
    (photos / "train/dog/1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"photos/train: .*there is no image of the classes dog"):
        load(photos)


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_of_different_classes_are_told_apart(photos: Path, split: str) -> None:
    (photos / "val/dog").rename(photos / "val/wolf")
    sides = {"train": ("val", "train", "dog", "wolf"), "test": ("train", "val", "wolf", "dog")}
    other, folder, lacking, excess = sides[split]
    message = (
        f"photos/{other} does not have the class folders of .*photos/{folder}: it lacks {lacking} "
        f"and has in excess {excess}$"
    )
    with pytest.raises(ValueError, match=message):
        load(photos, split)


@pytest.mark.parametrize("size", [0, -3])
def test_an_impossible_size_is_refused(photos: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}, expected at least 1"):
        load(photos, image_size=size)


def test_without_torchvision_the_error_says_what_needs_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"reading .*photos/train needs torchvision, which is not installed"):
        load(photos)
