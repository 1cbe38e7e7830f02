"""What an evaluation found, as its folder keeps it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .folder import Files, load_images
from .manifest import load_manifest
from .records import Record, read_records, read_times


@dataclass(frozen=True, eq=False)
class Results:
    """
    Attributes:
        folder: of the evaluation.
        manifest: see ``docs/evaluation.md``.
        records: of each attack by its name, "clean" first, in the order of the images.
        seconds: that each attack took, crafting and scoring, over all processes.
    """

    folder: Path
    manifest: dict[str, Any]
    records: dict[str, list[Record]]
    seconds: dict[str, float]

    @property
    def model(self) -> str:
        """Its name."""
        name: str = self.manifest["model"]
        return name

    @property
    def deterministic(self) -> bool:
        """Whether masks were fixed, so that nothing is said about the random model."""
        fixed: bool = self.manifest["identity"]["scoring"]["deterministic"]
        return fixed

    def attack(self, name: str) -> dict[str, Any]:
        """What was asked of an attack: method, access, settings and so on."""
        found: dict[str, Any] = self.manifest["identity"]["attacks"][name]
        return found

    def budget(self, name: str) -> float | None:
        """The paper's C = K N_S N_R N_E, in gradient passes of the source's classifier; None without gradients."""
        cost = self.manifest["costs"][name]
        return None if cost is None else float(cost["C"])

    def images(self, name: str) -> Tensor:
        """(N, C, H, W) float32, as they were scored; the order is that of the records."""
        ids = torch.tensor([record.image for record in self.records[name]])
        block = self.manifest["identity"]["block"]
        files = Files(self.folder, self.manifest.get("stamp", ""))
        return torch.cat(
            [
                load_images(files.images(name, number), part, files.stamp)
                for number, part in enumerate(ids.split(block))
            ]
        )


def load_evaluation(folder: str | Path) -> Results:
    """The results of an evaluation that is done.

    Raises:
        FileNotFoundError: there is none, or it is not done.
        ValueError: a file is damaged.
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
    return Results(files.folder, manifest, records, seconds_of(files, records))


def seconds_of(files: Files, attacks: Iterable[str]) -> dict[str, float]:
    """Each attack's, over all processes, from whatever the folder has of its blocks."""
    taken = {(line["attack"], line["block"]): line for path in files.time_parts() for line in read_times(path)}
    return {name: sum(line["seconds"] for line in taken.values() if line["attack"] == name) for name in attacks}
