"""Folders of images, one folder a class."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from ..progress import progress_bar
from .cache import cached_array
from .fetching import require_torchvision
from .image_files import ImageFiles, find_classes
from .images import ImageSet

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}
SIXTEEN_BITS = (";16B", ";16L", ";16N")  # as Pillow calls them
# A strip of pixels becomes a huge image where its shorter side is resized; 100 million pixels are 300 MB.
MOST_PIXELS = 100_000_000
MOST_ASPECT = 32
ORIENTATION = 0x0112  # the tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DECODING = f"upright RGB on white, shorter side resized, centre crop, Pillow {PIL.__version__}"


def image_folder(split: str, data_dir: Path, image_size: int = 160) -> ImageSet:
    """The images of ``train/CLASS/*``, or of ``test/CLASS/*`` or else ``val/CLASS/*``, numbered by sorted path.

    Each is turned upright, as its EXIF orientation says, laid on white where it is transparent, decoded to RGB,
    resized so that its shorter side has ``image_size`` pixels (bilinear, with antialias), and cropped to a square
    around its centre. This happens once: the result stays in ``cache_folder()``, mapped into memory, and is made anew
    when the folder has moved or the name, length or modification time of a file has changed.
    Files whose endings torchvision's ``ImageFolder`` does not know (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff, .ppm
    and .pgm) are passed over, and so are folders and images whose names begin with a dot, and links to a folder that
    they lie in; a warning says which.

    Args:
        split: "train" or "test".
        data_dir: holds the folders of the splits.
        image_size: height and width, in pixels.

    Returns:
        uint8 images (N, 3, image_size, image_size); the classes are the names of the folders, sorted.

    Raises:
        FileNotFoundError: a split's folder is missing, or there is no image of a class.
        ValueError: images are truncated, are none, have more than 8 bits a channel, more than 100 million pixels, or
            one side more than 32 times the other, and the message names all of them; or the splits differ in their
            classes.
        ImportError: torchvision is not installed.
    """
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}, expected at least 1")
    folders = split_folders(data_dir)
    if split not in folders:
        raise FileNotFoundError(f"{data_dir} holds no folder named {' or '.join(SPLIT_FOLDERS[split])}")
    folder = folders[split]
    torchvision = require_torchvision(f"reading {folder}")
    for other in folders.values():
        require_classes(other, find_classes(folder), str(folder))
    files = ImageFiles.of(folder, torchvision.datasets.folder.IMG_EXTENSIONS)
    shape = (len(files.samples), 3, image_size, image_size)
    images = cached_array(cache_name(files, image_size), shape, decoded(files, image_size))
    return ImageSet(
        name=f"{data_dir.resolve().name} {split}",
        images=torch.from_numpy(images),
        labels=torch.tensor([label for _, label in files.samples]),
        ids=torch.arange(len(files.samples)),
        classes=tuple(files.classes),
    )


def split_folders(data_dir: Path) -> dict[str, Path]:
    """The folder of each split that there is."""
    found = {split: [data_dir / name for name in names] for split, names in SPLIT_FOLDERS.items()}
    existing = {split: [folder for folder in folders if folder.is_dir()] for split, folders in found.items()}
    return {split: folders[0] for split, folders in existing.items() if folders}


def require_classes(folder: Path, expected: Iterable[str], source: str) -> None:
    found, wanted = set(find_classes(folder)), set(expected)
    differences = {"lacks": wanted - found, "has in excess": found - wanted}
    if found != wanted:
        said = " and ".join(f"{verb} {', '.join(sorted(names))}" for verb, names in differences.items() if names)
        raise ValueError(f"{folder} does not have the class folders of {source}: it {said}")


def load_rgb(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            check_size(*image.size)
            # Pillow would cut what is brighter than 255 to white, and the lower eight bits of a color.
            if image.mode.startswith(("I", "F")) or any(layout in str(image.tile) for layout in SIXTEEN_BITS):
                raise ValueError("it has more than 8 bits a channel")
            return upright(on_white(image), orientation(image))
    # Pillow's decoders tell of damage in many ways: OSError, SyntaxError, struct.error and others.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def orientation(image: Image.Image) -> int:
    """By EXIF; 1, upright, where that says nothing or is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as Pillow's decoders, in many ways
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def on_white(image: Image.Image) -> Image.Image:
    """In RGB; what is transparent shows white."""
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    colored = image.convert("RGBA")
    white = Image.new("RGBA", colored.size, "white")
    return Image.alpha_composite(white, colored).convert("RGB")


def check_size(width: int, height: int) -> None:
    """Refuses an image before it is decoded."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"it is {width:,} x {height:,}, expected at most {MOST_PIXELS:,} pixels")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise ValueError(f"it is {width:,} x {height:,}, expected no side more than {MOST_ASPECT} times the other")


def cache_name(files: ImageFiles, image_size: int) -> str:
    """Changes when a file is added, removed or changed, and says to a reader of the cache folder what it is.

    Two folders never share one: files out of archives may agree in names, lengths and times and not in what they hold.
    """
    stats = [(os.path.relpath(path, files.folder), os.stat(path)) for path, _ in files.samples]
    known = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    where = files.folder.resolve()
    digest = hashlib.sha256(json.dumps([DECODING, str(where), known]).encode()).hexdigest()
    return f"{where.parent.name}-{where.name}-{image_size}-{digest[:16]}"


def decoded(files: ImageFiles, image_size: int) -> Iterator[np.ndarray]:
    """(3, image_size, image_size) uint8 arrays.

    Raises:
        ValueError: images cannot be read; the message names all of them.
    """
    transforms = require_torchvision(f"reading {files.folder}").transforms
    steps = [transforms.Resize(image_size), transforms.CenterCrop(image_size), transforms.PILToTensor()]
    brought_to_size, faults = transforms.Compose(steps), []
    for path, _ in progress_bar(iterable=files.samples, desc=f"decoding {files.folder}", unit="image"):
        try:
            image = load_rgb(path)
        except ValueError as error:
            faults.append(str(error))
            continue
        if not faults:
            yield brought_to_size(image).numpy()
    if faults:
        raise ValueError("\n".join(faults))
