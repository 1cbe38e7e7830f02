"""Imagenette: ten easily told classes of ImageNet."""

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..utils.files import require_file
from ..utils.progress import say
from .cache import downloading, require_torchvision
from .folders import image_folder, require_classes, split_folders
from .images import ImageSet

TEST_IMAGES = 500
SPLIT_SEED = 0


def digits(split: str) -> ImageSet:
    """The 1,297 training or 500 test images: a fixed split, the classes in equal shares in both."""
    bunch = load_digits()
    train, test = train_test_split(
        range(len(bunch.target)), test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=bunch.target
    )
    chosen = sorted({"train": train, "test": test}[split])
    return ImageSet(
        name=f"digits {split}",
        images=torch.from_numpy(bunch.images[chosen]).to(torch.uint8).unsqueeze(1),
        labels=torch.from_numpy(bunch.target[chosen]).long(),
        ids=torch.arange(len(chosen)),
        classes=tuple(str(name) for name in bunch.target_names),
        white=16,
    )


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_FOLDER = "cifar-10-batches-py"
IMAGE_BYTES = 3 * 32 * 32
RECORD_BYTES = 1 + IMAGE_BYTES
RECORDS = 10_000
MD5_SUMS = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
}
FILES = {"train": tuple(MD5_SUMS), "test": ("test_batch.bin",)}
PICKLED = {"train": tuple(name.removesuffix(".bin") for name in MD5_SUMS), "test": ("test_batch",)}


def cifar10(split: str, data_dir: Path, download: bool = False) -> ImageSet:
    """50,000 training or up to 10,000 test images of 3 x 32 x 32.

    Args:
        split: "train" or "test".
        data_dir: a folder that holds, or is, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.
        download: let torchvision fetch ``cifar-10-batches-py`` into ``data_dir`` if the files of neither lie there,
            or if those of the latter are damaged.

    Raises:
        FileNotFoundError: there is neither folder, or a file is missing.
        ValueError: a file is truncated or damaged.
        OSError: the download failed.
        ImportError: torchvision, which reads and fetches ``cifar-10-batches-py``, is not installed.
    """
    for folder in (data_dir, data_dir / BINARY_FOLDER):
        if any((folder / name).exists() for name in FILES[split]):
            return from_binary(split, folder)
    # torchvision asks for the folder by its name, which "." does not have.
    named = Path(os.path.abspath(data_dir))
    for folder in (named, named / PYTHON_FOLDER):
        if any((folder / name).exists() for name in PICKLED[split]):
            return from_torchvision(split, folder, download)
    if download:
        return from_torchvision(split, data_dir / PYTHON_FOLDER, download)
    raise FileNotFoundError(
        f"{data_dir} holds neither {BINARY_FOLDER} nor {PYTHON_FOLDER} with files of the {split} images"
    )


def from_binary(split: str, folder: Path) -> ImageSet:
    records = np.concatenate([read_records(folder / name, split) for name in FILES[split]])
    pixels = np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32)
    return image_set(split, torch.from_numpy(pixels), torch.from_numpy(records[:, 0].astype(np.int64)))


def read_records(path: Path, split: str) -> np.ndarray:
    """(records, 3073) uint8: a label and an image each. Only the test file may hold fewer than 10,000."""
    require_file(path)
    size = path.stat().st_size
    count, rest = divmod(size, RECORD_BYTES)
    if rest or count == 0 or count > RECORDS or (count < RECORDS and split == "train"):
        at_most = "at most " if split == "test" else ""
        raise ValueError(
            f"{path} is {size:,} bytes, expected {at_most}{RECORDS * RECORD_BYTES:,}, in records of {RECORD_BYTES:,}"
        )
    if count < RECORDS:
        say(f"{path} holds {count:,} of the {RECORDS:,} test images")
    if split == "train":
        require_sum(path, MD5_SUMS[path.name])
    records = np.fromfile(path, dtype=np.uint8).reshape(count, RECORD_BYTES)
    worst = int(records[:, 0].max())
    if worst >= len(CIFAR10_CLASSES):
        record = int(records[:, 0].argmax())
        raise ValueError(
            f"{path} is damaged: record {record} has label {worst}, expected 0 to {len(CIFAR10_CLASSES) - 1}"
        )
    return records


def require_sum(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if found != expected:
        raise ValueError(f"{path} is damaged: its MD5 sum is {found}, expected {expected}, the official file's")


def from_torchvision(split: str, folder: Path, download: bool) -> ImageSet:
    """torchvision's layout is pickled: no file is opened before its MD5 sum is seen to be the official one."""
    official = require_torchvision(f"reading {folder}").datasets.CIFAR10
    if folder.name != PYTHON_FOLDER:
        raise ValueError(f"{folder} is named {folder.name}, expected {PYTHON_FOLDER}, the name that torchvision gives")
    read = partial(official, folder.parent, train=split == "train")
    if download:
        with downloading("cifar10", folder.parent):
            read(download=True)
    for name, digest in (
        *official.train_list,
        *official.test_list,
        [official.meta[key] for key in ("filename", "md5")],
    ):
        require_file(folder / name)
        require_sum(folder / name, digest)
    data = read()
    pixels = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return image_set(split, torch.from_numpy(pixels), torch.tensor(data.targets))


def image_set(split: str, images: torch.Tensor, labels: torch.Tensor) -> ImageSet:
    return ImageSet(f"cifar10 {split}", images, labels, torch.arange(len(images)), CIFAR10_CLASSES)


FOLDER = "imagenette2-160"
IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def imagenette(split: str, data_dir: Path, image_size: int = 160, download: bool = False) -> ImageSet:
    """The training images, or as test images those of ``val``, as ``image_folder`` reads them.

    Args:
        split: "train" or "test".
        data_dir: a folder that holds, or is, ``imagenette2-160``.
        image_size: height and width, in pixels.
        download: fetch the 160-pixel version into ``data_dir`` if it does not lie there.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: its class folders are not Imagenette's ten, or an image is damaged.
        OSError: the download failed.
        ImportError: torchvision is not installed.
    """
    folder = data_dir if split_folders(data_dir) else data_dir / FOLDER
    if download and not folder.exists():
        fetch(data_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{data_dir} neither holds nor is {FOLDER}")
    for images in split_folders(folder).values():
        require_classes(images, IMAGENETTE_CLASSES, "Imagenette")
    found = image_folder(split, folder, image_size)
    return replace(found, name=f"imagenette {split}", classes=tuple(IMAGENETTE_CLASSES.values()))


def fetch(data_dir: Path) -> None:
    """Unpacked aside and then moved: torchvision takes a folder that a kill left half unpacked for a whole one."""
    datasets = require_torchvision("downloading imagenette").datasets
    with downloading("imagenette", data_dir):
        if (data_dir / FOLDER).exists():
            return
        data_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{FOLDER}-", dir=data_dir) as aside:
            datasets.Imagenette(aside, size="160px", download=True)
            os.replace(Path(aside) / FOLDER, data_dir / FOLDER)
