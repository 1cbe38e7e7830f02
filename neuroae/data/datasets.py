"""The data sets with fixed contents: handwritten digits, CIFAR-10 and Imagenette."""

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
from ..utils.functions import current_folder_first, load_function
from ..utils.progress import print_notice
from .cache import downloading, require_torchvision
from .folders import image_folder, require_classes, split_folders
from .images import ImageSet, image_set

DIGITS_TEST_IMAGES = 500
DIGITS_SPLIT_SEED = 0

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY_FOLDER = "cifar-10-batches-bin"
PICKLED_FOLDER = "cifar-10-batches-py"
RECORD_BYTES = 1 + 3 * 32 * 32  # a label and an image
FILE_RECORDS = 10_000
MD5_SUMS = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
}
BINARY_FILES = {"train": tuple(MD5_SUMS), "test": ("test_batch.bin",)}
PICKLED_FILES = {split: tuple(name.removesuffix(".bin") for name in names) for split, names in BINARY_FILES.items()}

IMAGENETTE_FOLDER = "imagenette2-160"
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


def digits(split: str) -> ImageSet:
    """Returns scikit-learn's handwritten digits, 1,297 training or 500 test images of 1 x 8 x 8.

    The split is fixed, with equal shares of the classes in both parts.
    """
    bunch = load_digits()
    train, test = train_test_split(
        range(len(bunch.target)),
        test_size=DIGITS_TEST_IMAGES,
        random_state=DIGITS_SPLIT_SEED,
        stratify=bunch.target,
    )
    positions = sorted({"train": train, "test": test}[split])
    return ImageSet(
        name=f"digits {split}",
        images=torch.from_numpy(bunch.images[positions]).to(torch.uint8).unsqueeze(1),
        labels=torch.from_numpy(bunch.target[positions]).long(),
        ids=torch.arange(len(positions)),
        classes=tuple(str(name) for name in bunch.target_names),
        white=16,
    )


def cifar10(split: str, data_dir: Path, download: bool = False) -> ImageSet:
    """Returns CIFAR-10, 50,000 training or up to 10,000 test images of 3 x 32 x 32.

    Args:
        split: "train" or "test".
        data_dir: A folder that holds, or is, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.
        download: Whether torchvision downloads ``cifar-10-batches-py`` into ``data_dir`` if neither folder is there,
            or if the files of ``cifar-10-batches-py`` are damaged.

    Raises:
        FileNotFoundError: Both folders are missing, or a file is.
        ValueError: A file is truncated or damaged.
        OSError: The download failed.
        ImportError: torchvision, which reads and downloads ``cifar-10-batches-py``, is not installed.
    """
    for folder in (data_dir, data_dir / BINARY_FOLDER):
        if any((folder / name).exists() for name in BINARY_FILES[split]):
            return cifar10_from_binary(split, folder)
    # torchvision needs the name of the folder, which a path such as "." does not contain.
    absolute = Path(os.path.abspath(data_dir))
    for folder in (absolute, absolute / PICKLED_FOLDER):
        if any((folder / name).exists() for name in PICKLED_FILES[split]):
            return cifar10_from_torchvision(split, folder, download)
    if download:
        return cifar10_from_torchvision(split, data_dir / PICKLED_FOLDER, download)
    raise FileNotFoundError(
        f"{data_dir} holds neither {BINARY_FOLDER} nor {PICKLED_FOLDER} with files of the {split} images"
    )


def cifar10_from_binary(split: str, folder: Path) -> ImageSet:
    """Returns a split of the binary version."""
    records = np.concatenate([read_records(folder / name, split) for name in BINARY_FILES[split]])
    pixels = np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32)
    return cifar10_set(split, torch.from_numpy(pixels), torch.from_numpy(records[:, 0].astype(np.int64)))


def read_records(path: Path, split: str) -> np.ndarray:
    """Returns the records of a binary file, (records, 3073) uint8, each a label and an image.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, or does not hold 10,000 records; the test file may hold fewer.
    """
    require_file(path)
    size = path.stat().st_size
    count, rest = divmod(size, RECORD_BYTES)
    if rest or count == 0 or count > FILE_RECORDS or (count < FILE_RECORDS and split == "train"):
        at_most = "at most " if split == "test" else ""
        raise ValueError(
            f"{path} is {size:,} bytes, expected {at_most}{FILE_RECORDS * RECORD_BYTES:,}, in records of "
            f"{RECORD_BYTES:,}"
        )
    if count < FILE_RECORDS:
        print_notice(f"{path} holds {count:,} of the {FILE_RECORDS:,} test images")
    if split == "train":
        check_md5(path, MD5_SUMS[path.name])
    records = np.fromfile(path, dtype=np.uint8).reshape(count, RECORD_BYTES)
    highest = int(records[:, 0].max())
    if highest >= len(CIFAR10_CLASSES):
        record = int(records[:, 0].argmax())
        raise ValueError(
            f"{path} is damaged: record {record} has label {highest}, expected 0 to {len(CIFAR10_CLASSES) - 1}"
        )
    return records


def cifar10_from_torchvision(split: str, folder: Path, download: bool) -> ImageSet:
    """Returns a split of torchvision's version, which is pickled.

    No file is unpickled before its MD5 sum has been compared with the official one.
    """
    dataset = require_torchvision(f"reading {folder}").datasets.CIFAR10
    if folder.name != PICKLED_FOLDER:
        raise ValueError(f"{folder} is named {folder.name}, expected {PICKLED_FOLDER}, the name that torchvision uses")
    read = partial(dataset, folder.parent, train=split == "train")
    if download:
        with downloading("cifar10", folder.parent):
            read(download=True)
    index = [dataset.meta[key] for key in ("filename", "md5")]
    for name, digest in (*dataset.train_list, *dataset.test_list, index):
        require_file(folder / name)
        check_md5(folder / name, digest)
    data = read()
    pixels = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return cifar10_set(split, torch.from_numpy(pixels), torch.tensor(data.targets))


def check_md5(path: Path, expected: str) -> None:
    """Refuses a file whose MD5 sum is not the official one.

    Raises:
        ValueError: The sums differ.
    """
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if md5 != expected:
        raise ValueError(f"{path} is damaged: its MD5 sum is {md5}, expected {expected}, the official file's")


def cifar10_set(split: str, images: torch.Tensor, labels: torch.Tensor) -> ImageSet:
    """Returns the images with their ids and the names of the classes."""
    return ImageSet(f"cifar10 {split}", images, labels, torch.arange(len(images)), CIFAR10_CLASSES)


def imagenette(split: str, data_dir: Path, image_size: int = 160, download: bool = False) -> ImageSet:
    """Returns Imagenette, ten classes of ImageNet that are easy to tell apart, as ``image_folder`` reads it.

    Args:
        split: "train", or "test" for the images of Imagenette's ``val``.
        data_dir: A folder that holds, or is, ``imagenette2-160``.
        image_size: Height and width, in pixels.
        download: Whether to download the 160-pixel version into ``data_dir`` if it is not there.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Its class folders are not Imagenette's, or an image is damaged.
        OSError: The download failed.
        ImportError: torchvision is not installed.
    """
    folder = data_dir if split_folders(data_dir) else data_dir / IMAGENETTE_FOLDER
    if download and not folder.exists():
        download_imagenette(data_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{data_dir} neither holds nor is {IMAGENETTE_FOLDER}")
    for split_folder in split_folders(folder).values():
        require_classes(split_folder, IMAGENETTE_CLASSES, "Imagenette")
    data = image_folder(split, folder, image_size)
    return replace(data, name=f"imagenette {split}", classes=tuple(IMAGENETTE_CLASSES.values()))


def download_imagenette(data_dir: Path) -> None:
    """Downloads Imagenette into ``data_dir``.

    It is unpacked in a temporary folder and then moved, since torchvision would accept a half unpacked folder.
    """
    datasets = require_torchvision("downloading imagenette").datasets
    with downloading("imagenette", data_dir):
        if (data_dir / IMAGENETTE_FOLDER).exists():
            return
        data_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{IMAGENETTE_FOLDER}-", dir=data_dir) as unpacked:
            datasets.Imagenette(unpacked, size="160px", download=True)
            os.replace(Path(unpacked) / IMAGENETTE_FOLDER, data_dir / IMAGENETTE_FOLDER)


def own_dataset(name: str) -> ImageSet:
    """Returns the images of a user's function.

    Args:
        name: "module:function". The function takes no arguments and returns images (N, C, H, W), float32 in [0, 1] or
            uint8, and labels (N,) int64, as tensors or NumPy arrays; or an ``ImageSet``.

    Raises:
        ImportError: There is no such module.
        TypeError, ValueError: There is no such function, or it returns something else.
    """
    function = load_function(name)
    with current_folder_first():
        value = function()
    if isinstance(value, ImageSet):
        return value
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} returned a {type(value).__name__}, expected images and labels, or an ImageSet")
    images, labels = (torch.as_tensor(part) for part in value)
    try:
        return image_set(images, labels, name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
