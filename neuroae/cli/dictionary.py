"""``neuroae dictionary``: learn the atoms of an encoder."""

from pathlib import Path
from typing import Annotated

import typer

from ..data import DatasetName, load_dataset
from ..dictionary import save_dictionary
from ..presets import make_dictionary
from .options import Atoms, DataDir, Limit, Patch, Seed, overridden, preset_option


def dictionary(
    dataset: Annotated[DatasetName, typer.Option(help="Whose training images to learn from.")],
    data_dir: DataDir = None,
    limit: Limit = None,
    atoms: Atoms = None,
    patch: Patch = None,
    regularization: Annotated[float | None, preset_option("regularization", "Lambda in eq. 1.", min=0)] = None,
    iterations: Annotated[int | None, preset_option("iterations", "Minibatches.", min=1)] = None,
    batch_size: Annotated[int | None, preset_option("dictionary_batch", "Patches in a minibatch.", min=1)] = None,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("dictionary.safetensors"),
) -> None:
    """Learn a dictionary from patches of training images and save it as safetensors."""
    data = load_dataset(dataset, "train", data_dir).take(slice(limit))
    preset = overridden(
        dataset,
        atoms=atoms,
        patch=patch,
        regularization=regularization,
        iterations=iterations,
        dictionary_batch=batch_size,
    )
    learned = make_dictionary(preset, data, seed)
    notes = {
        "data": data.name,
        "images": len(data),
        "fingerprint": data.fingerprint(),
        "regularization": preset.regularization,
        "iterations": preset.iterations,
        "batch_size": preset.dictionary_batch,
        "seed": seed,
    }
    save_dictionary(output, learned, notes)
    print(f"{preset.atoms} atoms of {' x '.join(map(str, learned.shape[1:]))} in {output}")
