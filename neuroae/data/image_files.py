"""The files of a folder of images: its classes, and the images of each."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
