"""Where an evaluation keeps what: the layout of its folder."""

import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..utils.files import decode_json, load_tensors, naming, remove_leftovers, require_claim, save_tensors, sync


def sealed(value: dict[str, Any]) -> str:
    """A line: the checksum of the JSON, and the JSON."""
    text = json.dumps(value, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def unsealed(line: str) -> dict[str, Any] | None:
    """What the line holds, or None where it is damaged, not whole, or no JSON object."""
    checksum, _, text = line.rstrip("\n").partition(" ")
    if not line.endswith("\n") or checksum != f"{zlib.crc32(text.encode()):08x}":
        return None
    try:
        value = decode_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def append_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Adds lines to a file and waits until they are on the disk.

    Raises:
        FolderReplacedError: the file is in a folder that this process claimed and that is another run's by now.
    """
    require_claim(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("ab+") as file:
        # A killed process may have left half a line, which would spoil the next one too.
        if file.tell() and not ends_a_line(file.fileno()):
            file.write(b"\n")
        file.write("".join(map(sealed, values)).encode())
        file.flush()
        sync(file.fileno())


def ends_a_line(descriptor: int) -> bool:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) == b"\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; damaged ones are left out. No file gives none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [value for value in map(unsealed, lines) if value is not None]


MANIFEST = "manifest.json"
RECORDS = "records.jsonl"
TIMES = "times.jsonl"
IMAGES = "images"
SANITY = "sanity.json"


@dataclass(frozen=True)
class Files:
    """
    Attributes:
        folder: of the evaluation.
        stamp: of the evaluation, which records and images carry; empty in folders of earlier versions.
    """

    folder: Path
    stamp: str = ""

    @property
    def manifest(self) -> Path:
        """What was asked."""
        return self.folder / MANIFEST

    @property
    def records(self) -> Path:
        """All records, ordered by attack and image; there when the evaluation is done."""
        return self.folder / RECORDS

    @property
    def times(self) -> Path:
        """Seconds that each block took; there when the evaluation is done."""
        return self.folder / TIMES

    @property
    def sanity(self) -> Path:
        """What the sanity report measured, for the next report."""
        return self.folder / SANITY

    def record_part(self, rank: int) -> Path:
        """Records that a process made, in the order in which it made them."""
        return self.folder / "records" / f"part-{rank}.jsonl"

    def time_part(self, rank: int) -> Path:
        return self.folder / "times" / f"part-{rank}.jsonl"

    def record_parts(self) -> list[Path]:
        """Those of all processes of this run and of earlier ones, and what was merged."""
        return [self.records, *sorted((self.folder / "records").glob("part-*.jsonl"))]

    def time_parts(self) -> list[Path]:
        return [self.times, *sorted((self.folder / "times").glob("part-*.jsonl"))]

    def work(self) -> list[Path]:
        """What an evaluation leaves beside its manifest."""
        parts = [self.record_part(0).parent, self.time_part(0).parent, self.folder / IMAGES]
        return [self.records, self.times, self.sanity, *parts]

    def images(self, attack: str, block: int) -> Path:
        """The adversarial images of a block."""
        return self.folder / IMAGES / slug(attack) / f"{block:05d}.safetensors"

    def remove_leftovers(self) -> None:
        """Removes the temporary files of processes that were killed while they wrote."""
        for path in (self.manifest, self.records, self.times):
            remove_leftovers(path)
        for leftover in self.folder.glob(f"{IMAGES}/*/.*.safetensors"):
            leftover.unlink(missing_ok=True)


def slug(attack: str) -> str:
    """An attack's name as a folder's: its letters, of any script, and digits."""
    return re.sub(r"[\W_]+", "-", attack.lower()).strip("-")


def save_images(path: Path, images: Tensor, ids: Tensor, stamp: str = "") -> None:
    """Writes a block of (B, C, H, W) float32 images and their ids, with a checksum and the evaluation's stamp."""
    whose = {"crc32": checksum(images)}
    # In one entry, since safetensors writes several in any order, and files of one evaluation are equal to the byte.
    save_tensors(path, {"images": images, "ids": ids}, {"of": whose | {"stamp": stamp}} if stamp else whose)


def load_images(path: Path, ids: Tensor, stamp: str | None = None) -> Tensor:
    """The images that ``save_images`` wrote.

    Args:
        path: of the file.
        ids: that it has to hold.
        stamp: of the evaluation whose images they have to be; None is any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds images of other ids or of another evaluation; without a stamp they are
            anyone's.
    """
    tensors, metadata = load_tensors(path)
    try:
        images, found = tensors["images"], tensors["ids"]
    except KeyError as error:
        raise ValueError(f"{path} does not hold a block of images: {error} is missing") from error
    if found.tolist() != ids.tolist():
        raise ValueError(f"{path} holds other images than expected")
    whose = metadata.get("of", metadata)
    if stamp is not None and whose.get("stamp", "") not in ("", stamp):
        raise ValueError(f"{path} holds images of another evaluation, {whose['stamp']}, expected {stamp or 'none'}")
    if whose.get("crc32") != checksum(images):
        raise ValueError(f"{path} is damaged: its images do not fit their checksum")
    return images


def checksum(images: Tensor) -> str:
    return f"{zlib.crc32(images.cpu().contiguous().numpy().tobytes()):08x}"
