"""The dictionary that ``neuroae train`` trains on: of a file, of the model that it starts from, or its own."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from ..data import DatasetName, ImageSet, load_dataset
from ..dictionary import check_settings, load_dictionary, save_dictionary
from ..models.presets import Preset, make_dictionary
from ..reports.charts import dispensable
from ..reports.pictures import draw_atoms
from ..utils import distributed
from ..utils.files import load_tensors, remove_leftovers, require_same
from ..utils.versions import versions
from .options import Atoms, DataDir, Download, HoldOut, ImageSize, Limit, Patch, Seed, overridden, preset_option
from .runs import DICTIONARY, Start

SUFFIX = ".safetensors"


def dictionary(
    dataset: Annotated[DatasetName, typer.Option(help="Whose training images to learn from.")],
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    limit: Limit = None,
    hold_out: HoldOut = 0,
    atoms: Atoms = None,
    patch: Patch = None,
    regularization: Annotated[float | None, preset_option("regularization", "Lambda in eq. 1, above 0.")] = None,
    iterations: Annotated[int | None, preset_option("iterations", "Minibatches.", min=1)] = None,
    batch_size: Annotated[int | None, preset_option("dictionary_batch", "Patches in a minibatch.", min=1)] = None,
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option(help=f"File to write, NAME{SUFFIX}; a picture of the atoms goes to NAME.png.")
    ] = Path("dictionary.safetensors"),
) -> None:
    """Learn a dictionary from patches of training images, save it as safetensors, and draw it."""
    preset = overridden(
        dataset,
        atoms=atoms,
        patch=patch,
        regularization=regularization,
        iterations=iterations,
        dictionary_batch=batch_size,
    )
    check_settings(preset.atoms, preset.regularization, preset.iterations, preset.dictionary_batch)
    check_output(output)
    data = load_dataset(dataset, "train", data_dir, download, image_size).limited(limit)
    if hold_out:
        data, _ = data.hold_out(hold_out, seed)
    learned = make_dictionary(preset, data, seed)
    picture = output.with_suffix(".png")
    for path in (output, picture):
        remove_leftovers(path)
    save_dictionary(output, learned, dictionary_notes(preset, data, seed))
    drawn = ""
    with dispensable(picture):
        draw_atoms(picture, learned)
        drawn = f"; picture: {picture}"
    print(f"{preset.atoms} atoms of {' x '.join(map(str, learned.shape[1:]))} in {output}{drawn}")


def check_output(output: Path) -> None:
    """Refuses a file that could not be written in the end, that its own picture would replace, or that would replace
    what is no dictionary."""
    if output.suffix != SUFFIX:
        raise ValueError(f"output is {output}, expected a name that ends in {SUFFIX}")
    if output.is_dir():
        raise ValueError(f"output is {output}, a folder, expected a file")
    if output.exists():
        load_dictionary(output)  # refuses tensors of something else, which would be replaced
    elif output.with_suffix(".png").exists():
        raise ValueError(f"output is {output}, whose picture would replace {output.with_suffix('.png')}; move that")
    output.parent.mkdir(parents=True, exist_ok=True)


def dictionary_notes(preset: Preset, data: ImageSet, seed: int) -> dict[str, Any]:
    """What a dictionary was learned from, how, and with which versions; kept with its atoms."""
    return {
        "atoms": preset.atoms,
        "patch": preset.patch,
        "data": data.name,
        "images": len(data),
        "fingerprint": data.fingerprint(),
        "regularization": preset.regularization,
        "iterations": preset.iterations,
        "batch_size": preset.dictionary_batch,
        "seed": seed,
        "versions": versions(),
    }


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
    if distributed.is_first() and not path.exists():
        save_dictionary(path, make_dictionary(preset, data, seed), notes)
    distributed.wait_for_all()
    found = load_tensors(path)[1]
    # The fingerprint knows the images, whatever their folder is called by now.
    compared = notes.keys() - {"data", "versions"}
    require_same(path, {name: found.get(name) for name in compared}, {name: notes[name] for name in compared})
    return load_dictionary(path)
