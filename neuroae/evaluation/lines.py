"""Files of JSON lines, appended to while work goes on. Each line has a checksum, so that a torn one is noticed."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..storage import decode_json, naming, require_claim, sync


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
