"""The outputs of measurements: a page, the numbers as JSON, their provenance, and attacked images."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from neuroae.data import ImageSet
from neuroae.evaluation import Accuracy
from neuroae.kernels import backend_name
from neuroae.models.fingerprints import fingerprint
from neuroae.reports.report import digest
from neuroae.utils.files import (
    load_json,
    load_tensors,
    remove_leftovers,
    replacing,
    require_empty,
    require_same,
    save_json,
    save_tensors,
)
from neuroae.utils.progress import progress_bar
from neuroae.utils.versions import versions

PAGE = "README.md"
NUMBERS = "results.json"
IDENTITY = "identity.json"
DPI = 130


def write_results(
    folder: Path, title: str, parts: Sequence[str], numbers: Mapping[str, Any] | None = None, file: str = NUMBERS
) -> None:
    """Writes the page and the numbers of a measurement, and prints its table.

    Args:
        folder: The measurement's folder.
        title: The heading of the page.
        parts: The page below the heading, in Markdown; the first part is the table that is printed.
        numbers: The numbers in full; None writes none.
        file: The name of the file with the numbers.
    """
    if numbers is not None:
        save_json(folder / file, numbers)
    with replacing(folder / PAGE) as temporary:
        temporary.write_text("\n\n".join([f"# {title}", *parts]) + "\n", encoding="utf-8")
    print(parts[0])


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a picture, completely or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def accuracy_numbers(accuracy: Accuracy) -> dict[str, float]:
    """Returns an accuracy in [0, 1] and the ends of its Clopper-Pearson 95% interval."""
    low, high = accuracy.interval()
    return {"accuracy": accuracy.value, "low": low, "high": high}


def interval_cell(low: float, high: float) -> str:
    """Returns the ends of an interval in [0, 1] as percentages."""
    return f"{low:.1%} to {high:.1%}"


def provenance(name: str, model: nn.Module, data: ImageSet) -> dict[str, Any]:
    """Returns the model, images, backend and versions behind a result, for JSON.

    Args:
        name: The model's name, or its path, whose last part is the name.
        model: The measured model.
        data: The images it was measured on.
    """
    return {
        "model": Path(name).name,
        "fingerprint": fingerprint(model),
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "backend": backend_name("cpu"),
        "versions": versions(),
    }


def drop_commit(origin: dict[str, Any]) -> dict[str, Any]:
    """Returns a ``provenance`` without the commit, for work that another commit may continue."""
    return origin | {"versions": {name: version for name, version in origin["versions"].items() if name != "commit"}}


def provenance_line(origin: dict[str, Any]) -> str:
    """Returns a ``provenance`` as one line of a page."""
    data = origin["data"]
    parts = [
        f"Model {origin['model']}, {digest(origin)}",
        f"{data['images']:,} images of {data['name']}, {digest(data)}",
        f"backend {origin['backend']}",
        ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    ]
    return "; ".join(parts) + "."


class SavedImages:
    """Attacked images in a folder, a file for each block, so that a stopped measurement continues where it stopped.

    Args:
        folder: The folder for the files.
        identity: The values on which the images depend; JSON must be able to hold them.

    Attributes:
        seconds: The time that crafting took for the images returned so far, also in earlier runs.

    Raises:
        ValueError: The folder belongs to a measurement with another identity, or has images and no identity.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.seconds = 0.0
        path = folder / IDENTITY
        if path.exists():
            require_same(path, load_json(path), identity)
        else:
            require_empty(path, sorted(part.parent for part in folder.glob("*/*.safetensors")))
            save_json(path, identity)

    def images(self, title: str, data: ImageSet, craft: Callable[[ImageSet], Tensor], block: int) -> Tensor:
        """Returns (N, C, H, W) attacked images, and crafts those that the folder lacks.

        Args:
            title: The attack's name, for the progress and for the files.
            data: The N clean images.
            craft: Returns the attacked images of a part of the data.
            block: How many images ``craft`` gets, and a file holds.

        Raises:
            ValueError: A file is damaged, or holds the images of other ids.
        """
        folder = self.folder / re.sub(r"\W+", "-", title)
        blocks = []
        with progress_bar(total=len(data), desc=title, unit="img") as progress:
            for start in range(0, len(data), block):
                part = data.take(slice(start, start + block))
                blocks.append(self.block(folder / f"{start}.safetensors", part, craft))
                progress.update(len(part))
        return torch.cat(blocks)

    def block(self, path: Path, part: ImageSet, craft: Callable[[ImageSet], Tensor]) -> Tensor:
        """Returns the images of one file, and crafts them where there is none."""
        if not path.exists():
            remove_leftovers(path)
            start = time.perf_counter()
            images = craft(part)
            save_tensors(path, {"images": images, "ids": part.ids}, {"seconds": time.perf_counter() - start})
        tensors, notes = load_tensors(path)
        if "ids" not in tensors or not torch.equal(tensors["ids"], part.ids):
            raise ValueError(f"{path} holds other images than expected")
        self.seconds += notes["seconds"]
        return tensors["images"]
