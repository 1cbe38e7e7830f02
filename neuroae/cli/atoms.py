"""The dictionary that ``neuroae train`` trains on: of a file, of the model that it starts from, or its own."""

from pathlib import Path

import torch
from torch import Tensor

from .. import processes
from ..data import ImageSet
from ..dictionary import load_dictionary, save_dictionary
from ..presets import Preset, make_dictionary
from ..storage import load_tensors, require_same
from .dictionary import dictionary_notes
from .run_folder import DICTIONARY
from .starting import Start


def given_atoms(dictionary: Path | None, start: Start | None, count: int | None) -> Tensor | None:
    """The atoms of a file, or else those of the start; None where they are to be learned.

    Raises:
        ValueError: they are not as many as asked for by ``count``, or the start has none.
    """
    if dictionary is not None:
        name, atoms = str(dictionary), load_dictionary(dictionary)
    elif start is not None:
        name, atoms = "init", start.atoms()
    else:
        return None
    if count is not None and count != len(atoms):
        raise ValueError(f"atoms is {count}, but {name} holds {len(atoms)}; leave --atoms out to take them")
    return atoms


def any_atoms(preset: Preset, data: ImageSet) -> Tensor:
    """As many as will be learned, all of them flat: enough to see whether the other settings make a model."""
    channels = data.images.shape[1]
    entries = channels * preset.patch**2
    return torch.full((preset.atoms, channels, preset.patch, preset.patch), entries**-0.5)


def learned_atoms(preset: Preset, data: ImageSet, folder: Path, seed: int) -> Tensor:
    """Those of the folder; they are learned first where there are none, by one process."""
    path = folder / DICTIONARY
    notes = dictionary_notes(preset, data, seed)
    if processes.is_first() and not path.exists():
        save_dictionary(path, make_dictionary(preset, data, seed), notes)
    processes.wait_for_all()
    found = load_tensors(path)[1]
    # The fingerprint knows the images, whatever their folder is called by now.
    compared = notes.keys() - {"data", "versions"}
    require_same(path, {name: found.get(name) for name in compared}, {name: notes[name] for name in compared})
    return load_dictionary(path)
