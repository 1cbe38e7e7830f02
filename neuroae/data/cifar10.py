"""CIFAR-10 from its official binary version, or from the folder that torchvision downloads."""

import sys
from pathlib import Path

import numpy as np
import torch

from ..storage import require_file
from .images import ImageSet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_FOLDER = "cifar-10-batches-py"
IMAGE_BYTES = 3 * 32 * 32
RECORD_BYTES = 1 + IMAGE_BYTES
RECORDS = 10_000
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}


def cifar10(split: str, data_dir: Path) -> ImageSet:
    """50,000 training or up to 10,000 test images of 3 x 32 x 32.

    Args:
        split: "train" or "test".
        data_dir: a folder that holds, or is, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.

    Raises:
        FileNotFoundError: there is neither folder, or a file is missing.
        ValueError: a file is truncated or damaged.
    """
    for folder in (data_dir, data_dir / BINARY_FOLDER):
        if any((folder / name).exists() for names in FILES.values() for name in names):
            return from_binary(split, folder)
    for folder in (data_dir, data_dir / PYTHON_FOLDER):
        if (folder / "batches.meta").exists():
            return from_torchvision(split, folder)
    raise FileNotFoundError(f"{data_dir} holds neither {BINARY_FOLDER} nor {PYTHON_FOLDER}")


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
        print(f"{path} holds {count:,} of the {RECORDS:,} test images", file=sys.stderr)
    records = np.fromfile(path, dtype=np.uint8).reshape(count, RECORD_BYTES)
    worst = int(records[:, 0].max())
    if worst >= len(CLASSES):
        record = int(records[:, 0].argmax())
        raise ValueError(f"{path} is damaged: record {record} has label {worst}, expected 0 to {len(CLASSES) - 1}")
    return records


def from_torchvision(split: str, folder: Path) -> ImageSet:
    """torchvision's layout is pickled; its loader compares every file's MD5 with the official one first."""
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise ImportError(f"reading {folder} needs torchvision, which is not installed") from error
    if folder.name != PYTHON_FOLDER:
        raise ValueError(f"{folder} is named {folder.name}, expected {PYTHON_FOLDER}, the name that torchvision gives")
    try:
        data = CIFAR10(folder.parent, train=split == "train", download=False)
    except RuntimeError as error:
        raise ValueError(f"{folder} is incomplete or damaged: {error}") from error
    pixels = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return image_set(split, torch.from_numpy(pixels), torch.tensor(data.targets))


def image_set(split: str, images: torch.Tensor, labels: torch.Tensor) -> ImageSet:
    return ImageSet(f"cifar10 {split}", images, labels, torch.arange(len(images)), CLASSES)
