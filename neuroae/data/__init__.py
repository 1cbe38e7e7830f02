"""Data sets, by name."""

from pathlib import Path
from typing import Literal, get_args

from .augmentation import crop_and_flip
from .cifar10 import cifar10
from .digits import digits
from .images import ImageSet

__all__ = ["DATASETS", "DatasetName", "ImageSet", "crop_and_flip", "load_dataset"]

DatasetName = Literal["digits", "cifar10"]
DATASETS = get_args(DatasetName)
SPLITS = ("train", "test")


def load_dataset(name: str, split: str, data_dir: Path | None = None) -> ImageSet:
    """A split, "train" or "test", of a data set; ``data_dir`` is where its files lie, if it has any."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if name == "digits":
        return digits(split)
    if name == "cifar10":
        if data_dir is None:
            raise ValueError("cifar10 needs data_dir, the folder with cifar-10-batches-bin or cifar-10-batches-py")
        return cifar10(split, data_dir)
    raise ValueError(f"dataset is {name!r}, expected one of {', '.join(DATASETS)}")
