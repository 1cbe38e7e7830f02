"""An evaluation's folder, done or not, as the reports read it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..evaluation import CLEAN, Results, load_evaluation
from ..evaluation.files import IMAGES, Files, slug
from ..evaluation.manifest import load_manifest
from ..evaluation.records import read_records
from ..evaluation.results import seconds_of
from ..storage import load_tensors


class ImagePairs(NamedTuple):
    """Images of an attack that were saved together.

    Attributes:
        ids: (B,) int64.
        clean, perturbed: (B, C, H, W) float32.
    """

    ids: Tensor
    clean: Tensor
    perturbed: Tensor


def load_so_far(folder: Path) -> Results:
    """The results of an evaluation; of one that is not done, what its processes have appended until now.

    Then an attack's records are those of some of the images, in the order of their ids.

    Raises:
        FileNotFoundError: there is no evaluation in the folder.
        ValueError: a file is damaged, or nothing is recorded yet.
    """
    files = Files(folder)
    manifest = load_manifest(files)
    if files.records.exists():
        # One that is being mended, or was stopped there, holds less than all.
        with suppress(ValueError):
            return load_evaluation(folder)
    parts = (read_records(path, manifest.get("stamp", "")) for path in files.record_parts())
    known = {(record.attack, record.image): record for records in parts for record in records}
    if not known:
        raise ValueError(f"{folder} holds no records yet")
    names = manifest["identity"]["order"]
    records = {name: [known[key] for key in sorted(known) if key[0] == name] for name in names}
    return Results(folder, manifest, records, seconds_of(files, names))


def is_finished(results: Results) -> bool:
    images = results.manifest["identity"]["data"]["images"]
    return all(len(records) == images for records in results.records.values())


def image_pairs(folder: Path, attack: str) -> Iterator[ImagePairs]:
    """The saved images of an attack beside the clean ones, a file after the other."""
    # What a killed process was writing begins with a dot.
    for path in sorted((folder / IMAGES / slug(attack)).glob("[!.]*.safetensors")):
        clean = folder / IMAGES / slug(CLEAN) / path.name
        if clean.exists():
            perturbed, _ = load_tensors(path)
            yield ImagePairs(perturbed["ids"], load_tensors(clean)[0]["images"], perturbed["images"])
