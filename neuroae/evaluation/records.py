"""What is kept of each image under each attack: a line of JSON with a checksum, appended as soon as it is known."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .folder import append_lines, read_lines, sealed

CLEAN = "clean"


@dataclass(frozen=True)
class Record:
    """One image under one attack, or clean.

    Attributes:
        attack: its name, or "clean".
        image: id.
        label: the true class.
        vote: the class that the mean of the softmax outputs over the scoring draws gives (eq. 8).
        draws: the class that each scoring draw gives by itself.
        selection: margin of the log of the mean probabilities on the selection draws: above 0 where fooled there. The
            worst of several attacks is chosen by it, so that scoring draws choose nothing.
        linf, l2: norms of the perturbation, in double precision from the saved float32 images.
        gradients, forwards: passes that crafting took, realizations counted one by one; on the ensemble as deployed,
            whole ensembles, as K in the manifest counts them.
        zero, invalid: gradient passes without a usable gradient (zero throughout; NaN or infinite).
        stamp: of the evaluation, as its manifest has it; empty in the folders of earlier versions.
    """

    attack: str
    image: int
    label: int
    vote: int
    draws: tuple[int, ...]
    selection: float
    linf: float
    l2: float
    gradients: int
    forwards: int
    zero: int
    invalid: int
    stamp: str = field(default="", compare=False)


NUMBER = (int, float)
TIME = {"attack": (str,), "block": (int,), "seconds": NUMBER}
RECORD = {
    "attack": (str,),
    "image": (int,),
    "label": (int,),
    "vote": (int,),
    "draws": (list,),
    "selection": NUMBER,
    "linf": NUMBER,
    "l2": NUMBER,
    "gradients": (int,),
    "forwards": (int,),
    "zero": (int,),
    "invalid": (int,),
}


def record_line(record: Record) -> str:
    return sealed(fields_of(record))


def fields_of(record: Record) -> dict[str, Any]:
    """As lines hold them; without a stamp they are those of earlier versions."""
    return {name: value for name, value in asdict(record).items() if name != "stamp" or value}


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Adds lines to a file and waits until they are on the disk."""
    append_lines(path, map(fields_of, records))


def read_records(path: Path, stamp: str = "") -> list[Record]:
    """The whole records of a file; damaged lines and those of other evaluations are left out, to be made again.

    Args:
        path: of the file; no file gives none.
        stamp: of the evaluation, empty where its manifest has none. Records without a stamp are anyone's.
    """
    names = {part.name for part in fields(Record)}
    whole = (line for line in read_lines(path) if has_types(line, RECORD) and line.keys() <= names)
    records = [Record(**line | {"draws": tuple(line["draws"])}) for line in whole]
    return [record for record in records if record.stamp in ("", stamp)]


def read_times(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of times: the "seconds" that a "block" of an "attack" took."""
    return [line for line in read_lines(path) if has_types(line, TIME)]


def has_types(line: dict[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether the line has these fields, each of one of its types."""
    return all(type(line.get(name)) in allowed for name, allowed in types.items())
