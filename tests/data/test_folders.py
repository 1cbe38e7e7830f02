"""Folders of images: how an image is decoded, and when it is decoded again."""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neuroae.data import ImageSet
from neuroae.data.folders import ImageFiles
from photos import SIDE, by_hand, load, write_image, write_photos

datasets = pytest.importorskip("torchvision").datasets


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder that ``write_photos`` writes; the cache folder is empty."""
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def test_images_come_with_labels_ids_and_the_names_of_their_folders(photos: Path) -> None:
    train = load(photos)
    assert train.name == "photos train"
    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert train.ids.tolist() == [0, 1, 2, 3, 4]
    for image, name in zip(
        train.images, ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.jpg"), strict=True
    ):
        assert np.array_equal(image.numpy(), by_hand(photos / "train" / name))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 8), (8, 13), (40, 30), (5, 7), (1, 2)])
def test_an_image_becomes_a_square_of_rgb_bytes(photos: Path, width: int, height: int, mode: str) -> None:
    path = photos / "train/cat/0.png"
    write_image(path, 0, width, height, mode)
    assert np.array_equal(load(photos).images[0].numpy(), by_hand(path))


@pytest.mark.parametrize("number", range(10))
def test_an_image_is_turned_upright(photos: Path, number: int) -> None:
    """The EXIF standard says where the first row and column of the stored image belong."""
    stored = np.random.default_rng(0).integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(stored).save(photos / "train/cat/0.png", exif=exif)
    expected = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    assert np.array_equal(load(photos).images[0].permute(1, 2, 0), expected.get(number, stored))


def test_a_photograph_is_turned_before_it_is_cropped(photos: Path) -> None:
    stored = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    stored[:, SIDE:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(photos / "train/cat/0.png", exif=exif)
    image = load(photos).images[0]
    assert (image[:, : SIDE // 2] == 0).all()
    assert (image[:, SIDE // 2 :] == 255).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_none(photos: Path) -> None:
    path = photos / "train/cat/0.jpg"
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(path, exif=b"Exif\0\0II*\0spoiled")
    assert np.array_equal(load(photos).images[0], by_hand(path))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_shows_white(photos: Path, mode: str) -> None:
    """The left half is opaque and gray, the middle half transparent, over black."""
    gray = np.zeros((SIDE, SIDE), np.uint8)
    gray[:, :2] = 100
    alpha = np.where(gray > 0, 255, 0).astype(np.uint8)
    path = photos / "train/cat/0.png"
    bands = {"RGBA": [gray, gray, gray, alpha], "LA": [gray, alpha]}
    if mode in bands:
        Image.merge(mode, [Image.fromarray(band) for band in bands[mode]]).save(path)
    else:
        image = Image.fromarray(gray).convert(mode)
        image.save(path, transparency=image.getpixel((SIDE - 1, 0)))
    decoded = load(photos).images[0]
    assert (decoded[:, :, :2] == 100).all()
    assert (decoded[:, :, 2:] == 255).all()


def test_half_transparent_colors_are_mixed_with_white(photos: Path) -> None:
    Image.new("RGBA", (SIDE, SIDE), (200, 0, 100, 51)).save(photos / "train/cat/0.png")
    assert load(photos).images[0, :, 0, 0].tolist() == [244, 204, 224]


def test_cmyk_jpeg_is_read(photos: Path) -> None:
    path = photos / "train/dog/1.jpg"
    write_image(path, 0, mode="CMYK")
    assert np.array_equal(load(photos).images[4].numpy(), by_hand(path))


def test_test_images_are_those_of_test_or_else_of_val(photos: Path) -> None:
    assert np.array_equal(load(photos, "test").images[1].numpy(), by_hand(photos / "val/dog/0.png"))
    write_image(photos / "test/cat/0.png", 20)
    write_image(photos / "test/dog/0.png", 21)
    assert np.array_equal(load(photos, "test").images[1].numpy(), by_hand(photos / "test/dog/0.png"))


def test_images_are_decoded_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(photos)

    def decoded_again(path: str) -> None:
        pytest.fail(f"{path} was decoded again")

    monkeypatch.setattr("neuroae.data.folders.load_rgb", decoded_again)
    assert torch.equal(load(photos).images, first.images)


def test_folders_of_the_same_names_lengths_and_times_are_told_apart(photos: Path) -> None:
    """All files have the same time, as after unpacking an archive that stores no times."""
    other = photos.parent / "other" / "photos"
    shutil.copytree(photos, other)
    for seed, folder in enumerate((photos, other), start=40):
        write_image(folder / "train/cat/a.bmp", seed)
        for path in folder.glob("train/*/*"):
            os.utime(path, ns=(0, 0))
        assert np.array_equal(load(folder).images[3].numpy(), by_hand(folder / "train/cat/a.bmp"))


def warned(photos: Path) -> tuple[ImageSet, list[str]]:
    """Returns the training images and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return load(photos), [str(warning.message) for warning in caught]


def test_hidden_folders_are_no_classes(photos: Path) -> None:
    expected = load(photos)
    for split in ("train", "val"):
        write_image(photos / split / ".ipynb_checkpoints/0-checkpoint.png", 5)
    write_image(photos / "train/cat/.ipynb_checkpoints/0-checkpoint.png", 5)
    (photos / "train/cat/._0.png").write_bytes(b"of a Mac")
    (photos / "train/.DS_Store").touch()
    actual, notices = warned(photos)
    assert actual.classes == ("cat", "dog")
    assert torch.equal(actual.labels, expected.labels)
    assert torch.equal(actual.images, expected.images)
    hidden = [photos / "train" / name for name in (".ipynb_checkpoints", "cat/._0.png", "cat/.ipynb_checkpoints")]
    assert notices == [f"{photos / 'train'}: hidden files and folders left out: {', '.join(map(str, hidden))}"]


def test_files_with_other_endings_are_counted(photos: Path) -> None:
    for name in ("cat/a.gif", "cat/b.gif", "dog/c.GIF", "dog/notes"):
        (photos / "train" / name).touch()
    actual, notices = warned(photos)
    assert len(actual) == 5
    (notice,) = notices
    assert notice == (
        f"{photos / 'train'}: 4 files left out, whose endings are not read: 1 of .GIF, 1 of none, 2 of .gif"
    )


def test_a_link_to_a_folder_above_multiplies_nothing(photos: Path) -> None:
    expected = load(photos)
    loops = [photos / "train" / name for name in ("cat/again", "cat/deep/up", "dog/all")]
    (photos / "train/cat/deep").mkdir()
    for path, target in zip(loops, (photos / "train/cat", photos / "train/cat", photos), strict=True):
        path.symlink_to(target)
    (photos / "train/loop").symlink_to(photos / "train")
    (photos / "val/loop").symlink_to(photos)
    actual, notices = warned(photos)
    assert torch.equal(actual.images, expected.images)
    assert actual.classes == expected.classes
    text = ", ".join(map(str, loops))
    assert notices == [f"{photos / 'train'}: links to a folder that contains them left out: {text}"]


def test_links_that_lead_around_come_to_an_end(photos: Path) -> None:
    for first, second in (("one", "two"), ("two", "one")):
        write_image(photos / "train/cat" / first / "0.png", 50)
        (photos / "train/cat" / first / "other").symlink_to(photos / "train/cat" / second)
    assert len(load(photos)) == 5 + 4


def test_linked_folders_elsewhere_are_followed(photos: Path) -> None:
    (photos / "train/dog").rename(photos.parent / "elsewhere")
    (photos / "train/dog").symlink_to(photos.parent / "elsewhere")
    actual, notices = warned(photos)
    assert (len(actual), notices) == (5, [])


def test_images_come_in_the_order_of_torchvision(photos: Path) -> None:
    """The order gives images the same ids as in earlier versions."""
    for name in ("b/0.png", "a-b/0.png", "a/c/0.png", "a/0.png", "A.png", "z.png"):
        write_image(photos / "train/cat" / name, 60)
    expected = datasets.ImageFolder(photos / "train").samples
    assert ImageFiles.of(photos / "train", datasets.folder.IMG_EXTENSIONS).samples == expected


def repaint(folder: Path) -> None:
    """The file holds another image of the same length."""
    write_image(folder / "cat/a.bmp", 30)
    os.utime(folder / "cat/a.bmp", ns=(0, 1))


def reorder(folder: Path) -> None:
    """After renaming, the first of two files of the same length and time comes second."""
    (folder / "cat/a.bmp").rename(folder / "cat/c.bmp")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(repaint, id="repainted"),
        pytest.param(reorder, id="reordered"),
        pytest.param(lambda folder: write_image(folder / "cat/7.png", 31), id="added"),
        pytest.param(lambda folder: (folder / "cat/0.png").unlink(), id="removed"),
        pytest.param(lambda folder: write_image(folder / "dog/0.png", 32, width=40), id="larger"),
    ],
)
def test_a_change_in_the_folder_is_seen(photos: Path, change: Callable[[Path], object]) -> None:
    for seed, name in enumerate(("a.bmp", "b.bmp"), start=28):
        write_image(photos / "train/cat" / name, seed)
        os.utime(photos / "train/cat" / name, ns=(0, 0))
    before = load(photos).images
    change(photos / "train")
    after = load(photos).images
    paths = sorted((photos / "train").glob("*/*"))
    assert np.array_equal(after.numpy(), np.stack([by_hand(path) for path in paths]))
    assert not torch.equal(after, before)


def test_each_size_has_a_cache_of_its_own(photos: Path) -> None:
    path = photos / "train/cat/0.png"
    for size in (8, 16, 8):
        assert np.array_equal(load(photos, image_size=size).images[0].numpy(), by_hand(path, size))


def test_another_pillow_has_a_cache_of_its_own(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "1.1"):
        monkeypatch.setattr("neuroae.data.folders.DECODING", f"Pillow {version}")
        load(photos)
    assert len(list((photos.parent / "cache").glob("photos-train-8-*.npy"))) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from neuroae.data import folders, load_dataset

def load_two(path, load_rgb=folders.load_rgb, seen=[]):
    seen.append(path)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return load_rgb(path)

folders.load_rgb = load_two
load_dataset("image-folder", "train", Path(sys.argv[1]), image_size=int(sys.argv[2]))
"""


def test_a_kill_while_decoding_leaves_nothing_to_be_taken_for_a_cache(photos: Path) -> None:
    large = 400  # what two images of this size write does not stay in the file's buffer
    killed = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(large)], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (leftover,) = (photos.parent / "cache").glob(".*.npy")
    assert leftover.stat().st_size > large * large
    paths = sorted((photos / "train").glob("*/*"))
    assert np.array_equal(load(photos, image_size=large).images.numpy(), [by_hand(path, large) for path in paths])
    assert not leftover.exists()
