"""The folder of a run of ``neuroae train``, and its start: the atoms, and perhaps the weights of a saved model.

A folder belongs to one training. ``run.json`` holds the training's identity: method, images, settings, atoms and
initial weights. A command with another identity is refused.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..dictionary import load_dictionary, save_dictionary
from ..models import CARD, CONFIG, WEIGHTS, class_names, load_pretrained
from ..models.description import describe
from ..models.presets import Preset, make_dictionary
from ..nn.defense import Defense
from ..reports.training_record import PICTURE, TABLE
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
from .dictionary import dictionary_notes

RUN = "run.json"
DICTIONARY = "dictionary.safetensors"
CHECKPOINTS = "checkpoint-*.safetensors"
# The entries of a training's identity. "dictionary" is missing while the atoms are still to be learned, and "init" is
# missing without a saved model to start from.
IDENTITY = ("method", "dataset", "images", "fingerprint", "preset", "training", "init", "dictionary")
# The key of the identity in run.json. Its name is kept, so that earlier folders still load.
IDENTITY_KEY = "asked"


@contextmanager
def claimed_for_training(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Claims the folder for the length of the block, and writes the training's identity and versions into it.

    Args:
        folder: The folder of the training, created if it is missing.
        identity: The values by which trainings differ. Without "dictionary" the atoms are still to be learned, and
            depend only on the other entries.

    Raises:
        BlockingIOError: Another command has claimed the folder.
        ValueError: The folder belongs to another training, or to something else.
    """
    if not distributed.is_first():
        yield
        return
    require_training_folder(folder)
    with claimed(folder):
        for name in (RUN, DICTIONARY, WEIGHTS, CONFIG, CARD, TABLE, PICTURE):
            remove_leftovers(folder / name)
        if (folder / RUN).exists():
            require_run(folder, identity)
            note_versions(folder / RUN, load_run(folder))
        else:
            save_run(folder, identity)
        yield


def require_training_folder(folder: Path) -> None:
    """Refuses a folder that holds files which a training would replace, but no training.

    Raises:
        ValueError: The folder holds such a file.
    """
    if not (folder / RUN).exists() and not any(folder.glob(CHECKPOINTS)):
        require_empty(folder / RUN, [folder / name for name in (CARD, WEIGHTS, TABLE, PICTURE)])


def save_run(folder: Path, identity: dict[str, Any]) -> None:
    """Writes ``run.json``.

    Raises:
        ValueError: The folder holds checkpoints of an earlier version, without ``run.json``, of another training.
    """
    checkpoints = sorted(folder.glob(CHECKPOINTS))
    for checkpoint in checkpoints:
        require_identity(checkpoint, load_tensors(checkpoint)[1].get("identity"), identity)
    first_versions = [{"neuroae": "unknown, the training was begun by an earlier version"}] if checkpoints else []
    save_json(folder / RUN, {IDENTITY_KEY: identity, "versions": [*first_versions, versions()]})


def load_run(folder: Path) -> dict[str, Any]:
    """Returns the content of ``run.json``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The content has another form.
    """
    run = load_json(folder / RUN)
    has_parts = (
        isinstance(run, dict) and isinstance(run.get(IDENTITY_KEY), dict) and isinstance(run.get("versions"), list)
    )
    if not has_parts or not run["versions"] or not all(isinstance(entry, dict) for entry in run["versions"]):
        raise ValueError(f"{folder / RUN} is not what `neuroae train` writes")
    return run


def require_run(folder: Path, identity: dict[str, Any]) -> None:
    """Refuses a folder whose ``run.json`` belongs to another training.

    Raises:
        ValueError: The identities differ; the message says where.
    """
    require_same(folder / RUN, load_run(folder)[IDENTITY_KEY], identity)


def require_identity(path: Path, stored: Any, identity: dict[str, Any]) -> None:
    """Refuses a checkpoint or a model of another training.

    Both always hold the digest of the atoms. It is compared only if the identity has it.

    Args:
        path: The file, for the error.
        stored: The identity in the file, perhaps with other entries.
        identity: The training's identity.

    Raises:
        ValueError: The identities differ, or the file holds none.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"{path} does not say which training it belongs to")
    compared = [name for name in IDENTITY if name in identity or name != "dictionary"]
    require_same(path, {name: stored.get(name) for name in compared}, identity)


@dataclass(frozen=True, eq=False)
class Start:
    """A saved model whose weights and atoms a training starts from.

    Attributes:
        name: The user's name for it: a folder, or a model that ships with the package.
        model: The model.
        notes: The notes that were saved with it.
    """

    name: str
    model: nn.Module
    notes: dict[str, Any]

    @classmethod
    def load(cls, name_or_folder: str) -> "Start":
        """Loads the saved model of a name or a folder."""
        return cls(name_or_folder, *load_pretrained(name_or_folder))

    def atoms(self) -> Tensor:
        """Returns the atoms of a defense, (L, C, n, n).

        Raises:
            ValueError: The model is a classifier alone.
        """
        if not isinstance(self.model, Defense):
            raise ValueError(f"--init is {self.name!r}, a classifier without a dictionary, expected a defense")
        return self.model.encoder.atoms

    def copy_into(self, model: nn.Module) -> None:
        """Copies the weights into a new model.

        Raises:
            ValueError: The models differ in more than their weights; the message says where.
        """
        expected, actual = describe(self.model), describe(model)
        if expected != actual:
            differences = difference(Path(self.name).name, expected, actual)
            raise ValueError(f"--init is a model with other settings: {differences}")
        if isinstance(model, Defense) and not torch.equal(model.encoder.atoms, self.atoms()):
            raise ValueError("--init has other atoms than --dictionary; leave --dictionary out to use those of --init")
        model.load_state_dict(self.model.state_dict())

    def compare_classes(self, data: ImageSet) -> None:
        """Warns if the model was trained on classes with other names than the images'."""
        names = class_names(self.notes, len(data.classes))
        if names is not None and names != data.classes:
            warnings.warn(
                f"--init was trained on the classes {', '.join(names)}, and {data.name} has "
                f"{', '.join(data.classes)}: the model starts from what it learned about other classes",
                stacklevel=2,
            )

    def runs(self) -> list[dict[str, Any]]:
        """Returns the notes of the trainings that made these weights, oldest first."""
        names = {"run", "epochs", "seconds", "versions", "continued_with"}
        last = {name: note for name, note in self.notes.items() if name in names}
        return [*self.notes.get("earlier", []), last]


def load_initial_atoms(dictionary: Path | None, start: Start | None, num_atoms: int | None) -> Tensor | None:
    """Returns the atoms of a dictionary file, or else those of the saved model; None if they are to be learned.

    Args:
        dictionary: The file given by ``--dictionary``, or None.
        start: The model given by ``--init``, or None.
        num_atoms: The number given by ``--atoms``, or None.

    Raises:
        ValueError: There are not ``num_atoms`` atoms, or the saved model has none.
    """
    if dictionary is not None:
        name, atoms = str(dictionary), load_dictionary(dictionary)
    elif start is not None:
        name, atoms = "--init", start.atoms()
    else:
        return None
    if num_atoms is not None and num_atoms != len(atoms):
        raise ValueError(f"--atoms is {num_atoms}, but {name} holds {len(atoms)}; leave --atoms out to use them")
    return atoms


def make_placeholder_atoms(preset: Preset, data: ImageSet) -> Tensor:
    """Returns constant atoms with the shape of those that will be learned, to check the settings with."""
    channels = data.images.shape[1]
    entries = channels * preset.patch**2
    return torch.full((preset.atoms, channels, preset.patch, preset.patch), entries**-0.5)


def load_or_learn_atoms(preset: Preset, data: ImageSet, folder: Path, seed: int) -> Tensor:
    """Returns the atoms of the folder's dictionary. If it is missing, the first process learns and saves it.

    Raises:
        ValueError: The folder's dictionary was learned with other settings or from other images.
    """
    path = folder / DICTIONARY
    notes = dictionary_notes(preset, data, seed)
    if distributed.is_first() and not path.exists():
        save_dictionary(path, make_dictionary(preset, data, seed), notes)
    distributed.wait_for_all()
    stored = load_tensors(path)[1]
    # "data" holds the name of the images' folder, which may change; the fingerprint shows whether they are the same.
    compared = notes.keys() - {"data", "versions"}
    require_same(path, {name: stored.get(name) for name in compared}, {name: notes[name] for name in compared})
    return load_dictionary(path)
