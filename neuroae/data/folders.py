"""Folders of images, one folder a class."""

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

MOST_LISTED = 5


@dataclass
class ImageFiles:
    """
    Attributes:
        folder: of one split.
        classes: names of its folders, sorted.
        samples: path and label of each image, in the order of the classes, of the folders within them, and of names.
        hidden: folders and images whose names begin with a dot, which are left out.
        loops: links to a folder that they lie in, which are left out.
        endings: how many files have an ending that is not read, by the ending.
    """

    folder: Path
    classes: list[str]
    samples: list[tuple[str, int]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, folder: Path, endings: tuple[str, ...]) -> "ImageFiles":
        """Those of a folder; files with other endings are counted, and what is left out is a warning.

        Raises:
            FileNotFoundError: there is no folder of a class, or no image in one.
        """
        classes = find_classes(folder)
        files = cls(folder, classes)
        files.hidden = [entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name.startswith(".")]
        for label, name in enumerate(classes):
            paths = sorted(files.walk(folder / name, real_parents(folder), endings), key=os.path.split)
            files.samples += [(path, label) for path in paths]
        filled = {label for _, label in files.samples}
        empty = [name for label, name in enumerate(classes) if label not in filled]
        if empty:
            raise FileNotFoundError(
                f"{folder}: found no valid file for the classes {', '.join(empty)}; endings that are read are "
                f"{', '.join(endings)}"
            )
        files.warn()
        return files

    def walk(self, folder: Path, above: frozenset[str], endings: tuple[str, ...]) -> Iterator[str]:
        """Images of a folder and of those in it, links followed. ``above`` are the true paths of those it lies in."""
        real = os.path.realpath(folder)
        if real in above:
            self.loops.append(str(folder))
            return
        for entry in os.scandir(folder):
            image = entry.name.lower().endswith(endings)
            if entry.name.startswith("."):
                if image or entry.is_dir():
                    self.hidden.append(entry.path)
            elif entry.is_dir():
                yield from self.walk(Path(entry.path), above | {real}, endings)
            elif image:
                yield entry.path
            else:
                self.endings[Path(entry.name).suffix or "none"] += 1

    def warn(self) -> None:
        """Says what was left out."""
        if self.hidden:
            warnings.warn(f"{self.folder}: left out as hidden: {listed(self.hidden)}", stacklevel=4)
        if self.loops:
            warnings.warn(
                f"{self.folder}: left out as links to a folder that they lie in: {listed(self.loops)}", stacklevel=4
            )
        if self.endings:
            counts = listed([f"{count:,} of {ending}" for ending, count in self.endings.most_common()])
            warnings.warn(
                f"{self.folder}: {self.endings.total():,} files have endings that are not read: {counts}", stacklevel=4
            )


def find_classes(folder: Path) -> list[str]:
    """Names of the folders that are not hidden, sorted.

    Raises:
        FileNotFoundError: there is none.
    """
    above = real_parents(folder)
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if os.path.realpath(entry.path) not in above)
    if not classes:
        raise FileNotFoundError(f"there is no class folder in {folder}")
    return classes


def real_parents(folder: Path) -> frozenset[str]:
    """True paths of the folder and of those that it lies in."""
    real = Path(os.path.realpath(folder))
    return frozenset(map(str, (real, *real.parents)))


def listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:MOST_LISTED])
    return shown if len(names) <= MOST_LISTED else f"{shown} and {len(names) - MOST_LISTED:,} more"


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
