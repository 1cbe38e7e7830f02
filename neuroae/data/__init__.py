"""Data sets by name: handwritten digits, CIFAR-10, Imagenette and folders of images."""

from pathlib import Path
from typing import Literal, get_args

from .datasets import cifar10, digits, imagenette, own_dataset
from .folders import image_folder
from .images import ImageSet, crop_and_flip, image_set

__all__ = ["DATASETS", "DatasetName", "ImageSet", "crop_and_flip", "image_set", "load_dataset", "own_dataset"]

DatasetName = Literal["digits", "cifar10", "imagenette", "image-folder"]
DATASETS = get_args(DatasetName)
SPLITS = ("train", "test")
RESIZED = ("imagenette", "image-folder")
IMAGE_SIZE = 160
FOLDER_CONTENTS = {
    "cifar10": "cifar-10-batches-bin or cifar-10-batches-py",
    "imagenette": "imagenette2-160",
    "image-folder": "train/CLASS/* and test/CLASS/* or val/CLASS/*",
}


def load_dataset(
    name: str, split: str, data_dir: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> ImageSet:
    """Returns a split of a data set.

    Args:
        name: One of ``DATASETS``.
        split: "train" or "test".
        data_dir: The folder with the files, needed for every data set but the digits.
        download: Whether to download cifar10 or imagenette, through torchvision, if it is not in ``data_dir``.
        image_size: Height and width, in pixels, that images of imagenette and image-folder are resized to; None is
            160. Images of the other data sets keep their size.

    Raises:
        FileNotFoundError: A file or folder is missing.
        ValueError: The name or the split is unknown, ``data_dir`` is missing, a file is damaged, or the data set
            cannot be downloaded or resized.
        ImportError: The files need torchvision, which is not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}, expected one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if download and name == "digits":
        raise ValueError("digits come with scikit-learn: there is nothing to download")
    if download and name == "image-folder":
        raise ValueError("image-folder reads images of your own: there is nothing to download")
    if image_size is not None and name not in RESIZED:
        raise ValueError(f"image_size is {image_size}, but images of {name} keep their own size")
    if name == "digits":
        return digits(split)
    if data_dir is None:
        raise ValueError(f"{name} needs data_dir, the folder with {FOLDER_CONTENTS[name]}")
    folder = Path(data_dir)
    if name == "cifar10":
        return cifar10(split, folder, download)
    side = IMAGE_SIZE if image_size is None else image_size
    if name == "imagenette":
        return imagenette(split, folder, side, download)
    return image_folder(split, folder, side)
