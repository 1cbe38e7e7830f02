"""Folders of random images, and what their images should be after decoding."""

from pathlib import Path

import numpy as np
from PIL import Image

from neuroae.data import ImageSet, load_dataset

SIDE = 8


def write_image(path: Path, seed: int, width: int = 11, height: int = SIDE, mode: str = "RGB") -> None:
    drawn = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).convert(mode).save(path)


def write_photos(folder: Path) -> None:
    """Writes five training and two validation images of two classes."""
    for seed, name in enumerate(("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.jpg")):
        write_image(folder / "train" / name, seed)
    write_image(folder / "val/cat/0.png", 10)
    write_image(folder / "val/dog/0.png", 11)


def load(folder: Path, split: str = "train", image_size: int = SIDE) -> ImageSet:
    return load_dataset("image-folder", split, folder, image_size=image_size)


def by_hand(path: Path, image_size: int = SIDE) -> np.ndarray:
    """Returns what an image should be after decoding, (3, image_size, image_size)."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    shorter = min(image.size)
    width, height = (image_size * side // shorter for side in image.size)
    if shorter != image_size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    return np.asarray(image)[top : top + image_size, left : left + image_size].transpose(2, 0, 1)
