"""Attacked images kept block by block while an experiment runs, so that it goes on where it was stopped."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroae.data import ImageSet
from neuroae.utils.files import (
    load_json,
    load_tensors,
    remove_leftovers,
    require_empty,
    require_same,
    save_json,
    save_tensors,
)
from neuroae.utils.progress import progress_bar

IDENTITY = "identity.json"

CraftBlock = Callable[[ImageSet], Tensor]


class Kept:
    """A folder with one file a block; ``seconds`` counts what all blocks took, those of earlier starts too.

    Args:
        folder: for the files.
        identity: what JSON holds and must be the same when the experiment goes on.

    Raises:
        ValueError: the folder belongs to another experiment, or holds blocks and no word of whose.
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

    def images(self, title: str, data: ImageSet, craft: CraftBlock, block: int) -> Tensor:
        """All images as the attack leaves them, with progress under the title, which also names the files.

        Args:
            title: of the attack.
            data: that is attacked.
            craft: from some of the data to their attacked images.
            block: images a file, and a call of ``craft``.

        Raises:
            ValueError: a file is damaged, or holds other images than those of its part of the data.
        """
        folder = self.folder / re.sub(r"\W+", "-", title)
        found = []
        with progress_bar(total=len(data), desc=title, unit="img") as progress:
            for start in range(0, len(data), block):
                part = data.take(slice(start, start + block))
                found.append(self.block(folder / f"{start}.safetensors", part, craft))
                progress.update(len(part))
        return torch.cat(found)

    def block(self, path: Path, part: ImageSet, craft: CraftBlock) -> Tensor:
        if not path.exists():
            remove_leftovers(path)
            started = time.perf_counter()
            crafted = craft(part)
            save_tensors(path, {"images": crafted, "ids": part.ids}, {"seconds": time.perf_counter() - started})
        tensors, notes = load_tensors(path)
        if "ids" not in tensors or not torch.equal(tensors["ids"], part.ids):
            raise ValueError(f"{path} holds other images than expected")
        self.seconds += notes["seconds"]
        return tensors["images"]
