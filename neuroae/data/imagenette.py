"""Imagenette: ten easily told classes of ImageNet."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from .fetching import downloading, require_torchvision
from .folders import image_folder, require_classes, split_folders
from .images import ImageSet

FOLDER = "imagenette2-160"
CLASSES = {
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
        require_classes(images, CLASSES, "Imagenette")
    found = image_folder(split, folder, image_size)
    return replace(found, name=f"imagenette {split}", classes=tuple(CLASSES.values()))


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
