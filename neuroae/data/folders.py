"""Data sets in folders of images, one folder for each class: finding the files, and decoding the images."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from ..utils.progress import progress_bar
from .cache import cached_array, require_torchvision
from .images import ImageSet

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}
MAX_LISTED = 5
# The suffixes that mark layouts of 16-bit pixels in Image.tile.
SIXTEEN_BITS = (";16B", ";16L", ";16N")
# 100 million pixels are 300 MB in RGB.
MAX_PIXELS = 100_000_000
# Resizing the shorter side of a narrow strip would make the other side huge.
MAX_ASPECT = 32
EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Part of the names of cached arrays, so that images are decoded again after a change of the method or of Pillow.
DECODING = f"upright RGB on white, shorter side resized, centre crop, Pillow {PIL.__version__}"


def image_folder(split: str, data_dir: Path, image_size: int = 160) -> ImageSet:
    """Returns the images of ``train/CLASS/*``, or of ``test/CLASS/*`` or else ``val/CLASS/*``, ordered by path.

    Each image is turned upright by its EXIF orientation, laid on white where it is transparent, converted to RGB,
    resized so that its shorter side has ``image_size`` pixels (bilinear, with antialias), and cropped to the central
    square. The result is kept in ``cache_folder()`` and mapped into memory. Images are decoded again when the folder
    has moved, or when the name, length or modification time of a file has changed.

    Only files with the endings that torchvision's ``ImageFolder`` reads are used: .jpg, .jpeg, .png, .webp, .bmp,
    .tif, .tiff, .ppm and .pgm. Folders and images whose names begin with a dot are left out, and so are links to a
    folder that contains them. Warnings list what was left out.

    Args:
        split: "train" or "test".
        data_dir: The folder with the folders of the splits.
        image_size: Height and width, in pixels.

    Returns:
        uint8 images (N, 3, image_size, image_size); the classes are the names of the folders, sorted.

    Raises:
        FileNotFoundError: The split's folder is missing, or a class has no image.
        ValueError: Images are damaged, have more than 8 bits a channel or more than 100 million pixels, or have one
            side more than 32 times the other (the message names all of them); or the splits differ in their classes.
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
    images = cached_array(cache_name(files, image_size), shape, decode(files, image_size))
    return ImageSet(
        name=f"{data_dir.resolve().name} {split}",
        images=torch.from_numpy(images),
        labels=torch.tensor([label for _, label in files.samples]),
        ids=torch.arange(len(files.samples)),
        classes=tuple(files.classes),
    )


def split_folders(data_dir: Path) -> dict[str, Path]:
    """Returns the folder of each split that exists."""
    candidates = {split: [data_dir / name for name in names] for split, names in SPLIT_FOLDERS.items()}
    existing = {split: [folder for folder in folders if folder.is_dir()] for split, folders in candidates.items()}
    return {split: folders[0] for split, folders in existing.items() if folders}


def require_classes(folder: Path, expected: Iterable[str], source: str) -> None:
    """Refuses a folder whose class folders are not the expected ones.

    Args:
        folder: The folder of a split.
        expected: The names of the classes.
        source: Where these names come from, for the error.

    Raises:
        ValueError: The class folders differ; the message lists the names.
    """
    names, expected_names = set(find_classes(folder)), set(expected)
    differences = {"lacks": expected_names - names, "has in excess": names - expected_names}
    if names != expected_names:
        listing = " and ".join(
            f"{verb} {', '.join(sorted(classes))}" for verb, classes in differences.items() if classes
        )
        raise ValueError(f"{folder} does not have the class folders of {source}: it {listing}")


def find_classes(folder: Path) -> list[str]:
    """Returns the names of the class folders, sorted, without hidden folders and links to a parent folder.

    Raises:
        FileNotFoundError: There is no class folder.
    """
    parents = real_parents(folder)
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if os.path.realpath(entry.path) not in parents)
    if not classes:
        raise FileNotFoundError(f"there is no class folder in {folder}")
    return classes


def real_parents(folder: Path) -> frozenset[str]:
    """Returns the paths of the folder and of all folders that contain it, with links resolved."""
    real = Path(os.path.realpath(folder))
    return frozenset(map(str, (real, *real.parents)))


@dataclass
class ImageFiles:
    """The image files of a split, and the files and folders that were left out.

    Attributes:
        folder: The split's folder.
        classes: The names of its class folders, sorted.
        samples: The path and label of each image, ordered by class, then by folder inside of it, then by name.
        hidden: Paths of folders and images whose names begin with a dot.
        loops: Paths of links to a folder that contains them.
        endings: The number of files with an ending that is not read, by ending.
    """

    folder: Path
    classes: list[str]
    samples: list[tuple[str, int]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, folder: Path, endings: tuple[str, ...]) -> "ImageFiles":
        """Returns the images of a folder with these endings, and warns of what was left out.

        Raises:
            FileNotFoundError: There is no class folder, or no image in one.
        """
        classes = find_classes(folder)
        files = cls(folder, classes)
        files.hidden = [entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name.startswith(".")]
        for label, name in enumerate(classes):
            paths = sorted(files.walk(folder / name, real_parents(folder), endings), key=os.path.split)
            files.samples += [(path, label) for path in paths]
        labels = {label for _, label in files.samples}
        empty = [name for label, name in enumerate(classes) if label not in labels]
        if empty:
            raise FileNotFoundError(
                f"{folder}: there is no image of the classes {', '.join(empty)}; the endings read are "
                f"{', '.join(endings)}"
            )
        files.warn()
        return files

    def walk(self, folder: Path, parents: frozenset[str], endings: tuple[str, ...]) -> Iterator[str]:
        """Yields the paths of the images in a folder and in the folders inside of it. Follows links.

        Args:
            folder: The folder.
            parents: The paths of the folders that contain it, with links resolved.
            endings: The endings of images.
        """
        real = os.path.realpath(folder)
        if real in parents:
            self.loops.append(str(folder))
            return
        for entry in os.scandir(folder):
            is_image = entry.name.lower().endswith(endings)
            if entry.name.startswith("."):
                if is_image or entry.is_dir():
                    self.hidden.append(entry.path)
            elif entry.is_dir():
                yield from self.walk(Path(entry.path), parents | {real}, endings)
            elif is_image:
                yield entry.path
            else:
                self.endings[Path(entry.name).suffix or "none"] += 1

    def warn(self) -> None:
        """Warns of files and folders that were left out."""
        if self.hidden:
            warnings.warn(f"{self.folder}: hidden files and folders left out: {list_names(self.hidden)}", stacklevel=4)
        if self.loops:
            warnings.warn(
                f"{self.folder}: links to a folder that contains them left out: {list_names(self.loops)}", stacklevel=4
            )
        if self.endings:
            counts = list_names([f"{count:,} of {ending}" for ending, count in self.endings.most_common()])
            warnings.warn(
                f"{self.folder}: {self.endings.total():,} files left out, whose endings are not read: {counts}",
                stacklevel=4,
            )


def list_names(names: list[str]) -> str:
    """Returns the first names, sorted, and how many more there are, as text."""
    text = ", ".join(sorted(names)[:MAX_LISTED])
    return text if len(names) <= MAX_LISTED else f"{text} and {len(names) - MAX_LISTED:,} more"


def cache_name(files: ImageFiles, image_size: int) -> str:
    """Returns a name for the cached array that changes when a file is added, removed or changed.

    The folder's path is part of it, since files of two archives may agree in names, lengths and times, yet differ.
    """
    stats = [(os.path.relpath(path, files.folder), os.stat(path)) for path, _ in files.samples]
    states = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    folder = files.folder.resolve()
    digest = hashlib.sha256(json.dumps([DECODING, str(folder), states]).encode()).hexdigest()
    return f"{folder.parent.name}-{folder.name}-{image_size}-{digest[:16]}"


def decode(files: ImageFiles, image_size: int) -> Iterator[np.ndarray]:
    """Yields the images as (3, image_size, image_size) uint8 arrays.

    Raises:
        ValueError: Images cannot be read; the message names all of them.
    """
    transforms = require_torchvision(f"reading {files.folder}").transforms
    steps = [transforms.Resize(image_size), transforms.CenterCrop(image_size), transforms.PILToTensor()]
    resize, errors = transforms.Compose(steps), []
    for path, _ in progress_bar(iterable=files.samples, desc=f"decoding {files.folder}", unit="image"):
        try:
            image = load_rgb(path)
        except ValueError as error:
            errors.append(str(error))
            continue
        if not errors:
            yield resize(image).numpy()
    if errors:
        raise ValueError("\n".join(errors))


def load_rgb(path: str) -> Image.Image:
    """Returns the image in RGB, upright, on white.

    Raises:
        ValueError: The image cannot be read, is too large, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            check_size(*image.size)
            # Pillow would clip grays above 255 to white, and drop the lower 8 bits of colors.
            if image.mode.startswith(("I", "F")) or any(layout in str(image.tile) for layout in SIXTEEN_BITS):
                raise ValueError("it has more than 8 bits a channel")
            return turn_upright(lay_on_white(image), read_orientation(image))
    # Pillow's decoders raise OSError, SyntaxError, struct.error and others for damaged files.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def check_size(width: int, height: int) -> None:
    """Refuses an image that is too large or too narrow, before it is decoded.

    Raises:
        ValueError: The image is too large or too narrow.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"it is {width:,} x {height:,}, expected at most {MAX_PIXELS:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"it is {width:,} x {height:,}, expected no side more than {MAX_ASPECT} times the other")


def lay_on_white(image: Image.Image) -> Image.Image:
    """Returns the image in RGB, with white where it is transparent."""
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    colored = image.convert("RGBA")
    white = Image.new("RGBA", colored.size, "white")
    return Image.alpha_composite(white, colored).convert("RGB")


def read_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1, which is upright, if it is missing or damaged."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds of errors, as in load_rgb
        return 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns the image, turned and mirrored by its EXIF orientation."""
    return image.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else image
