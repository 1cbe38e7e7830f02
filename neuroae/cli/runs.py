"""A saved model as the start of a training: another cycle of the learning rate, or other data."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..models import CARD, CONFIG, WEIGHTS, class_names, load_pretrained
from ..models.description import describe
from ..nn.defense import Defense
from ..reports.charts import PICTURE, TABLE
from ..utils import distributed
from ..utils.files import (
    claimed,
    difference,
    load_json,
    load_tensors,
    remove_leftovers,
    require_empty,
    require_same,
    save_json,
)
from ..utils.versions import note_versions, versions

RUN = "run.json"
DICTIONARY = "dictionary.safetensors"
CHECKPOINTS = "checkpoint-*.safetensors"
ASKED = ("method", "dataset", "images", "fingerprint", "preset", "training", "init", "dictionary")


@contextmanager
def taken(folder: Path, asked: dict[str, Any]) -> Iterator[None]:
    """Keeps other commands out while the block is at work, and writes down what was asked, for all that come later.

    Args:
        folder: of the training, made if missing.
        asked: what makes two trainings the same. Without "dictionary" the atoms are still to be learned, and follow
            from the rest.

    Raises:
        BlockingIOError: another command is at work there.
        ValueError: the folder belongs to another training, or to none.
    """
    if not distributed.is_first():
        yield
        return
    refuse_foreign(folder)
    with claimed(folder):
        for name in (RUN, DICTIONARY, WEIGHTS, CONFIG, CARD, TABLE, PICTURE):
            remove_leftovers(folder / name)
        checkpoints = sorted(folder.glob(CHECKPOINTS))
        if (folder / RUN).exists():
            require_asked(folder, asked)
            note_versions(folder / RUN, load_run(folder))
        else:
            # Folders of earlier versions say only in their checkpoints whose they are.
            for checkpoint in checkpoints:
                require_settings(checkpoint, load_tensors(checkpoint)[1].get("identity"), asked)
            begun = [{"neuroae": "unknown, the training was begun by an earlier version"}] if checkpoints else []
            save_json(folder / RUN, {"asked": asked, "versions": [*begun, versions()]})
        yield


def refuse_foreign(folder: Path) -> None:
    """Refuses a folder with files that a training would replace, and without any that says that they are a training's.

    Raises:
        ValueError: there is such a file.
    """
    if not (folder / RUN).exists() and not any(folder.glob(CHECKPOINTS)):
        require_empty(folder / RUN, [folder / name for name in (CARD, WEIGHTS, TABLE, PICTURE)])


def require_asked(folder: Path, asked: dict[str, Any]) -> None:
    """Refuses a folder that another training was asked for.

    Raises:
        ValueError: they differ; the message says where.
    """
    require_same(folder / RUN, load_run(folder)["asked"], asked)


def require_settings(path: Path, found: Any, asked: dict[str, Any]) -> None:
    """The same for a file that knows the atoms in any case, whether they were given or learned.

    Args:
        path: of the file.
        found: what it says that was asked, among other things.
        asked: see ``taken``.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not say which training it belongs to")
    compared = [name for name in ASKED if name in asked or name != "dictionary"]
    require_same(path, {name: found.get(name) for name in compared}, asked)


def load_run(folder: Path) -> dict[str, Any]:
    run = load_json(folder / RUN)
    fits = isinstance(run, dict) and isinstance(run.get("asked"), dict) and isinstance(run.get("versions"), list)
    if not fits or not run["versions"] or not all(isinstance(each, dict) for each in run["versions"]):
        raise ValueError(f"{folder / RUN} is not what `neuroae train` writes")
    return run


@dataclass(frozen=True, eq=False)
class Start:
    """Where the weights come from.

    Attributes:
        name: as the user gave it: a folder, or a name that ships with the package.
        model: that is there.
        notes: what is known of it.
    """

    name: str
    model: nn.Module
    notes: dict[str, Any]

    @classmethod
    def load(cls, name_or_folder: str) -> "Start":
        return cls(name_or_folder, *load_pretrained(name_or_folder))

    def atoms(self) -> Tensor:
        """Those of a defense.

        Raises:
            ValueError: it is a classifier alone.
        """
        if not isinstance(self.model, Defense):
            raise ValueError(f"init is {self.name!r}, a classifier without a dictionary, expected a defense")
        return self.model.encoder.atoms

    def copy_into(self, model: nn.Module) -> None:
        """Gives a new model these weights.

        Raises:
            ValueError: the two are not alike; the message says where.
        """
        there, here = describe(self.model), describe(model)
        if there != here:
            raise ValueError(f"init is another model: {difference(Path(self.name).name, there, here)}")
        if isinstance(model, Defense) and not torch.equal(model.encoder.atoms, self.atoms()):
            raise ValueError("init has other atoms than --dictionary; leave that option out to take them from init")
        model.load_state_dict(self.model.state_dict())

    def compare_classes(self, data: ImageSet) -> None:
        """Warns where the names of the start's classes are known and the images have others."""
        names = class_names(self.notes, len(data.classes))
        if names is not None and names != data.classes:
            warnings.warn(
                f"init was trained on the classes {', '.join(names)}, and {data.name} has {', '.join(data.classes)}: "
                "what it knows of a class starts out under another name",
                stacklevel=2,
            )

    def runs(self) -> list[dict[str, Any]]:
        """The trainings that made these weights, oldest first, as notes keep them."""
        kept = {"run", "epochs", "seconds", "versions", "continued_with"}
        last = {name: note for name, note in self.notes.items() if name in kept}
        return [*self.notes.get("earlier", []), last]
