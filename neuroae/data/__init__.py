"""Data sets, by name."""

from pathlib import Path
from typing import Literal, get_args

from .datasets import cifar10, digits, imagenette
from .folders import image_folder
from .images import ImageSet, crop_and_flip

__all__ = ["DATASETS", "DatasetName", "ImageSet", "crop_and_flip", "load_dataset"]

DatasetName = Literal["digits", "cifar10", "imagenette", "image-folder"]
DATASETS = get_args(DatasetName)
SPLITS = ("train", "test")
RESIZED = ("imagenette", "image-folder")
IMAGE_SIZE = 160
WHAT_LIES_THERE = {
    "cifar10": "cifar-10-batches-bin or cifar-10-batches-py",
    "imagenette": "imagenette2-160",
    "image-folder": "train/CLASS/* and test/CLASS/* or val/CLASS/*",
}


def load_dataset(
    name: str, split: str, data_dir: str | Path | None = None, download: bool = False, image_size: int | None = None
) -> ImageSet:
    """A split of a data set.

    Args:
        name: one of ``DATASETS``.
        split: "train" or "test".
        data_dir: the folder where the files lie; every data set but the digits needs one.
        download: fetch cifar10 or imagenette into ``data_dir``, through torchvision, where it does not lie there.
        image_size: height and width, in pixels, that images of imagenette and image-folder are brought to; None is
            160. The others keep their own, and take None.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: an unknown name or split, a missing ``data_dir``, a damaged file, or nothing to download or resize.
        ImportError: the files need torchvision, which is not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}, expected one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if download and name == "digits":
        raise ValueError("digits come with scikit-learn: there is nothing to download")
    if download and name == "image-folder":
        raise ValueError("image-folder stands for images of your own: there is nothing to download")
    if image_size is not None and name not in RESIZED:
        raise ValueError(f"image_size is {image_size}, but images of {name} keep their own")
    if name == "digits":
        return digits(split)
    if data_dir is None:
        raise ValueError(f"{name} needs data_dir, the folder with {WHAT_LIES_THERE[name]}")
    folder = Path(data_dir)
    if name == "cifar10":
        return cifar10(split, folder, download)
    side = IMAGE_SIZE if image_size is None else image_size
    if name == "imagenette":
        return imagenette(split, folder, side, download)
    return image_folder(split, folder, side)
