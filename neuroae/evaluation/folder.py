"""The folder of an evaluation: its layout, its files of lines and its images."""

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..attacks.restarts import NO_DETAILS
from ..utils.files import (
    decode_json,
    load_tensors,
    naming,
    remove_leftovers,
    replacing,
    require_claim,
    save_tensors,
    sync,
)

# A line is a JSON object whose last key is the checksum of the object without it.
LINE = re.compile(r'(\{.*?),?"crc32":"([0-9a-f]{8})"\}\n')
# Earlier versions wrote the checksum, a space and the object.
EARLIER_LINE = re.compile(r"([0-9a-f]{8}) (.*)\n")


def to_line(value: dict[str, Any]) -> str:
    """Returns the value as a line of JSON with the checksum of the rest as its last key, "crc32"."""
    text = json.dumps(value, separators=(",", ":"))
    return f'{text[:-1]}{"," if value else ""}"crc32":"{crc32(text.encode())}"}}\n'


def from_line(line: str) -> dict[str, Any] | None:
    """Returns the value of a line without its checksum; None for a line that is damaged or incomplete.

    Lines of earlier versions are read too.
    """
    if match := LINE.fullmatch(line):
        text, checksum = match[1] + "}", match[2]
    elif match := EARLIER_LINE.fullmatch(line):
        checksum, text = match[1], match[2]
    else:
        return None
    if checksum != crc32(text.encode()):
        return None
    try:
        value = decode_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def crc32(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


def append_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Adds lines to a file and waits until they are on the disk.

    Raises:
        FolderReplacedError: The file is in a folder that this process claimed and that another run has replaced.
    """
    require_claim(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("ab+") as file:
        # A killed process may have left half a line, which would spoil the next one too.
        if file.tell() and not ends_a_line(file.fileno()):
            file.write(b"\n")
        file.write("".join(map(to_line, values)).encode())
        file.flush()
        sync(file.fileno())


def ends_a_line(descriptor: int) -> bool:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) == b"\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the values of the intact lines of a file; a missing file has none."""
    return [value for value in decoded_lines(path) if value is not None]


def decoded_lines(path: Path) -> list[dict[str, Any] | None]:
    """Returns the value of every line of a file, None for a damaged one."""
    if not path.exists():
        return []
    return list(map(from_line, path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)))


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Writes a file of these lines alone. A file that holds them already, as any version wrote it, is left alone."""
    lines = list(map(to_line, values))
    if not path.exists() or decoded_lines(path) != list(map(from_line, lines)):
        with replacing(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


MANIFEST = "manifest.json"
RECORDS = "records.jsonl"
TIMES = "times.jsonl"
IMAGES = "images"
SANITY = "sanity.json"
DETAIL = "detail "


@dataclass(frozen=True)
class Files:
    """The files of an evaluation.

    Attributes:
        folder: The evaluation's folder.
        stamp: The evaluation's stamp, which its records and images carry; empty in folders of earlier versions.
    """

    folder: Path
    stamp: str = ""

    @property
    def manifest(self) -> Path:
        """The file that says what is evaluated."""
        return self.folder / MANIFEST

    @property
    def records(self) -> Path:
        """All records, ordered by attack and image. The file exists once the evaluation is finished."""
        return self.folder / RECORDS

    @property
    def times(self) -> Path:
        """The seconds of each block. The file exists once the evaluation is finished."""
        return self.folder / TIMES

    @property
    def sanity(self) -> Path:
        """The checks of the sanity report."""
        return self.folder / SANITY

    def record_part(self, rank: int) -> Path:
        """Returns the file of one process's records, in the order in which it made them."""
        return self.folder / "records" / f"part-{rank}.jsonl"

    def time_part(self, rank: int) -> Path:
        """Returns the file of the seconds that one process's blocks took."""
        return self.folder / "times" / f"part-{rank}.jsonl"

    def record_parts(self) -> list[Path]:
        """Returns all files of records: the merged one, and those of all processes of this and earlier runs."""
        return [self.records, *sorted((self.folder / "records").glob("part-*.jsonl"))]

    def time_parts(self) -> list[Path]:
        """Returns all files of times, in the same order."""
        return [self.times, *sorted((self.folder / "times").glob("part-*.jsonl"))]

    def work(self) -> list[Path]:
        """Returns the files and folders that an evaluation leaves beside its manifest."""
        parts = [self.record_part(0).parent, self.time_part(0).parent, self.folder / IMAGES]
        return [self.records, self.times, self.sanity, *parts]

    def images(self, attack: str, block: int) -> Path:
        """Returns the file of a block's images under an attack."""
        return self.folder / IMAGES / slug(attack) / f"{block:05d}.safetensors"

    def remove_leftovers(self) -> None:
        """Removes the temporary files of processes that were killed while they wrote."""
        for path in (self.manifest, self.records, self.times):
            remove_leftovers(path)
        for leftover in self.folder.glob(f"{IMAGES}/*/.*.safetensors"):
            leftover.unlink(missing_ok=True)


def slug(attack: str) -> str:
    """Returns an attack's name as the name of a folder: its letters, of any script, and digits."""
    return re.sub(r"[\W_]+", "-", attack.lower()).strip("-")


def save_images(
    path: Path, images: Tensor, ids: Tensor, stamp: str = "", details: Mapping[str, Tensor] = NO_DETAILS
) -> None:
    """Writes a block of (B, C, H, W) float32 images and their ids, with a checksum and the evaluation's stamp.

    ``details`` are further tensors of each image, (B, ...), by name.
    """
    more = {DETAIL + name: tensor.contiguous().cpu() for name, tensor in details.items()}
    origin = {"crc32": checksum(images)}
    # One entry: safetensors writes several in any order, and equal evaluations shall leave equal bytes.
    save_tensors(path, {"images": images, "ids": ids} | more, {"of": origin | {"stamp": stamp}} if stamp else origin)


def load_details(path: Path) -> dict[str, Tensor]:
    """Returns the details that ``save_images`` wrote; none where the file is gone."""
    if not path.exists():
        return {}
    tensors, _ = load_tensors(path)
    return {name.removeprefix(DETAIL): tensor for name, tensor in tensors.items() if name.startswith(DETAIL)}


def load_images(path: Path, ids: Tensor, stamp: str | None = None) -> Tensor:
    """Returns the images that ``save_images`` wrote.

    Args:
        path: The file.
        ids: The ids that the file has to hold, in this order.
        stamp: The stamp of the evaluation that the images have to belong to. None accepts any, and images without a
            stamp belong to every evaluation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or holds images of other ids or of another evaluation.
    """
    tensors, metadata = load_tensors(path)
    try:
        images, saved_ids = tensors["images"], tensors["ids"]
    except KeyError as error:
        raise ValueError(f"{path} does not hold a block of images: {error} is missing") from error
    if saved_ids.tolist() != ids.tolist():
        raise ValueError(f"{path} holds other images than expected")
    origin = metadata.get("of", metadata)
    if stamp is not None and origin.get("stamp", "") not in ("", stamp):
        raise ValueError(f"{path} holds images of another evaluation, {origin['stamp']}, expected {stamp or 'none'}")
    if origin.get("crc32") != checksum(images):
        raise ValueError(f"{path} is damaged: its images do not fit their checksum")
    return images


def checksum(images: Tensor) -> str:
    return crc32(images.cpu().contiguous().numpy().tobytes())
