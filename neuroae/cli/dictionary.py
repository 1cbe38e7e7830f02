"""``neuroae dictionary``: learn a dictionary, save it and draw it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import DatasetName, ImageSet, load_dataset
from ..dictionary import check_settings, load_dictionary, save_dictionary
from ..models.presets import Preset, make_dictionary
from ..reports.charts import dispensable
from ..reports.pictures import draw_atoms
from ..utils.files import remove_leftovers
from ..utils.versions import versions
from .options import (
    DataDir,
    Download,
    HoldOut,
    ImageSize,
    Limit,
    NumAtoms,
    Patch,
    Seed,
    override_preset,
    preset_option,
)

SUFFIX = ".safetensors"


def dictionary(
    dataset: Annotated[DatasetName, typer.Option(help="Data set with the training images to learn from.")],
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    limit: Limit = None,
    hold_out: HoldOut = 0,
    num_atoms: NumAtoms = None,
    patch: Patch = None,
    regularization: Annotated[
        float | None, preset_option("regularization", "Weight of the codes' l1 norm, lambda in eq. 1; above 0.")
    ] = None,
    iterations: Annotated[int | None, preset_option("iterations", "Number of minibatches.", min=1)] = None,
    batch_size: Annotated[
        int | None, preset_option("dictionary_batch", "Number of patches in a minibatch.", min=1)
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option(help=f"File to write, NAME{SUFFIX}. A picture of the atoms is written to NAME.png.")
    ] = Path("dictionary.safetensors"),
) -> None:
    """Learn a dictionary from patches of training images, save it as safetensors, and draw it."""
    preset = override_preset(
        dataset,
        atoms=num_atoms,
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
    atoms = make_dictionary(preset, data, seed)
    picture = output.with_suffix(".png")
    for path in (output, picture):
        remove_leftovers(path)
    save_dictionary(output, atoms, dictionary_notes(preset, data, seed))
    picture_note = ""
    with dispensable(picture):
        draw_atoms(picture, atoms)
        picture_note = f"; picture: {picture}"
    print(f"{preset.atoms} atoms of {' x '.join(map(str, atoms.shape[1:]))} in {output}{picture_note}")


def check_output(output: Path) -> None:
    """Refuses a path that cannot be written to, or where the dictionary or its picture would replace another file.

    An existing dictionary is replaced, with its picture.

    Raises:
        ValueError: The path has another suffix, is a folder, or holds a file that is not a dictionary; or a picture
            exists without a dictionary.
    """
    picture = output.with_suffix(".png")
    if output.suffix != SUFFIX:
        raise ValueError(f"output is {output}, expected a name that ends in {SUFFIX}")
    if output.is_dir():
        raise ValueError(f"output is {output}, a folder, expected a file")
    if output.exists():
        load_dictionary(output)
    elif picture.exists():
        raise ValueError(f"output is {output}, whose picture would replace {picture}; move {picture.name} first")
    output.parent.mkdir(parents=True, exist_ok=True)


def dictionary_notes(preset: Preset, data: ImageSet, seed: int) -> dict[str, Any]:
    """Returns the images, settings and versions that a dictionary was learned with, to be saved with its atoms."""
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
