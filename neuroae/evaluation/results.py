"""The results of an evaluation, from its folder or from memory."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..utils.files import load_tensors
from .folder import IMAGES, Files, load_details, load_images, slug
from .manifest import load_manifest
from .records import CLEAN, Record, read_records, read_times
from .statistics import Accuracy, Estimate, draw_accuracy, vote_accuracy


@dataclass(frozen=True, eq=False)
class Results:
    """What an evaluation found. Attacks go by their names; "clean" is the clean images.

    Attributes:
        folder: The evaluation's folder, None for an evaluation in memory.
        manifest: What was evaluated (see ``docs/evaluation.md``).
        records: The records of each attack, "clean" first, in the order of the images.
        seconds: The seconds that crafting and scoring took under each attack, summed over all processes.
        memory: The images of an evaluation in memory; read them by ``images``.
        details_in_memory: The details of an evaluation in memory; read them by ``details``.
    """

    folder: Path | None
    manifest: dict[str, Any]
    records: dict[str, list[Record]]
    seconds: dict[str, float]
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    details_in_memory: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name."""
        name: str = self.manifest["model"]
        return name

    @property
    def deterministic(self) -> bool:
        """Whether masks were fixed, so that the results say nothing about the random model."""
        fixed: bool = self.manifest["identity"]["scoring"]["deterministic"]
        return fixed

    @property
    def finished(self) -> bool:
        """Whether every attack has a record of every image."""
        images = self.manifest["identity"]["data"]["images"]
        return all(len(records) == images for records in self.records.values())

    def attack(self, name: str) -> dict[str, Any]:
        """Returns the identity of an attack: method, access, source, settings and so on."""
        identity: dict[str, Any] = self.manifest["identity"]["attacks"][name]
        return identity

    def budget(self, name: str) -> float | None:
        """Returns the paper's C = K N_S N_R N_E, in gradient passes of the source's classifier.

        None for an attack without gradients, and in memory, where K is not measured.
        """
        cost = self.manifest["costs"].get(name)
        return None if cost is None else float(cost["C"])

    def accuracy(self, name: str) -> Accuracy:
        """Returns the accuracy of the E scoring draws as one vote (paper, eq. 8)."""
        return vote_accuracy(self.records[name])

    def draw_accuracy(self, name: str) -> Estimate:
        """Returns the accuracy of a single draw: the mean over the scoring draws, with its interval."""
        return draw_accuracy(self.records[name])

    def passes(self, name: str) -> int:
        """Returns the gradient passes of an attack: images times realizations."""
        return sum(record.gradients for record in self.records[name])

    def zero(self, name: str) -> int:
        """Returns how many gradient passes gave a gradient that is zero throughout."""
        return sum(record.zero for record in self.records[name])

    def invalid(self, name: str) -> int:
        """Returns how many gradient passes gave a gradient with NaN or infinity in it."""
        return sum(record.invalid for record in self.records[name])

    def details(self, name: str) -> dict[str, Tensor]:
        """Returns what a suite kept of each image beside its record, (N, ...) by name; nothing of other attacks.

        Images that were removed, as in committed results, leave no details.
        """
        if self.folder is None:
            return dict(self.details_in_memory.get(name, {}))
        files, block = Files(self.folder), self.manifest["identity"]["block"]
        blocks = -(-len(self.records[name]) // block)
        parts = [load_details(files.images(name, number)) for number in range(blocks)]
        return join_details(parts) if all(parts) else {}

    def images(self, name: str) -> Tensor:
        """Returns the images as they were scored, (N, C, H, W) float32 in [0, 1], in the order of the records.

        Raises:
            FileNotFoundError: The folder holds no images, like the folders in ``results/``.
            ValueError: A file of images is damaged.
        """
        if self.folder is None:
            return self.memory[name]
        ids = torch.tensor([record.image for record in self.records[name]])
        block = self.manifest["identity"]["block"]
        files = Files(self.folder, self.manifest.get("stamp", ""))
        return torch.cat(
            [
                load_images(files.images(name, number), part, files.stamp)
                for number, part in enumerate(ids.split(block))
            ]
        )


def join_details(blocks: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Joins the details of blocks. Of losses, which only attacked blocks have, NaN stands for the others."""
    blocks = list(blocks)
    joined = {}
    for name in dict.fromkeys(name for block in blocks for name in block):
        shape = next(block[name].shape[1:] for block in blocks if name in block)
        absent = [torch.full((len(next(iter(block.values()))), *shape), torch.nan) for block in blocks]
        joined[name] = torch.cat([block.get(name, nothing) for block, nothing in zip(blocks, absent, strict=True)])
    return joined


def load_evaluation(folder: str | Path) -> Results:
    """Returns the results of a finished evaluation.

    Raises:
        FileNotFoundError: There is no evaluation in the folder, or it is not finished.
        ValueError: A file is damaged.
    """
    files = Files(Path(folder))
    manifest = load_manifest(files)
    if not files.records.exists():
        raise FileNotFoundError(f"{files.records} is missing: the evaluation is not done; start it again to go on")
    records: dict[str, list[Record]] = {name: [] for name in manifest["identity"]["order"]}
    for record in read_records(files.records, manifest.get("stamp", "")):
        records.setdefault(record.attack, []).append(record)
    images = manifest["identity"]["data"]["images"]
    if len(records) > len(manifest["identity"]["order"]) or any(len(each) != images for each in records.values()):
        raise ValueError(f"{files.records} is damaged: start the evaluation again to mend it")
    return Results(files.folder, manifest, records, load_seconds(files, list(records)))


def load_partial(folder: str | Path) -> Results:
    """Returns the results of an evaluation as far as it has come.

    Where it is not finished, an attack's records are those of some of the images, in the order of their ids.

    Raises:
        FileNotFoundError: There is no evaluation in the folder.
        ValueError: A file is damaged, or nothing is recorded yet.
    """
    folder = Path(folder)
    files = Files(folder)
    manifest = load_manifest(files)
    if files.records.exists():
        # Merged records may lack some while damage is being mended, or after a run was stopped there.
        with suppress(ValueError):
            return load_evaluation(folder)
    parts = (read_records(path, manifest.get("stamp", "")) for path in files.record_parts())
    by_key = {(record.attack, record.image): record for records in parts for record in records}
    if not by_key:
        raise ValueError(f"{folder} holds no records yet")
    names = manifest["identity"]["order"]
    records = {name: [by_key[key] for key in sorted(by_key) if key[0] == name] for name in names}
    return Results(folder, manifest, records, load_seconds(files, names))


def load_seconds(files: Files, attacks: list[str]) -> dict[str, float]:
    """Returns the seconds of each attack over all processes, from every file of times in the folder."""
    blocks = {(line["attack"], line["block"]): line for path in files.time_parts() for line in read_times(path)}
    return {name: sum(line["seconds"] for line in blocks.values() if line["attack"] == name) for name in attacks}


class ImagePairs(NamedTuple):
    """A saved block of an attack.

    Attributes:
        ids: (B,) int64.
        clean: (B, C, H, W) float32.
        perturbed: (B, C, H, W) float32.
    """

    ids: Tensor
    clean: Tensor
    perturbed: Tensor


def image_pairs(folder: Path, attack: str) -> Iterator[ImagePairs]:
    """Yields the saved images of an attack beside the clean ones, block by block."""
    # The file that a killed process was writing begins with a dot.
    for path in sorted((folder / IMAGES / slug(attack)).glob("[!.]*.safetensors")):
        clean = folder / IMAGES / slug(CLEAN) / path.name
        if clean.exists():
            perturbed, _ = load_tensors(path)
            yield ImagePairs(perturbed["ids"], load_tensors(clean)[0]["images"], perturbed["images"])
