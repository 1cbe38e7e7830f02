"""Records: what an evaluation keeps of each image under each attack, as lines of JSON in its folder."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .folder import append_lines, read_lines

CLEAN = "clean"


@dataclass(frozen=True)
class Record:
    """One image under one attack, or clean.

    Attributes:
        attack: The attack's name, or "clean".
        image: The image's id.
        label: The true class.
        vote: The class with the largest mean softmax output over the scoring draws (paper, eq. 8).
        draws: The class that each scoring draw gives by itself.
        selection: The margin of the log of the mean probabilities on the selection draws, above 0 for a wrong answer.
            The worst of several attacks is chosen by it, so that scoring draws choose nothing.
        linf: The l-infinity norm of the perturbation, in double precision from the saved float32 images.
        l2: Its l2 norm, likewise.
        gradients: Gradient passes that crafting took, realizations counted one by one. On the ensemble as deployed
            a pass is a whole ensemble, as for K in the manifest.
        forwards: Forward passes that crafting took, counted likewise.
        zero: Gradient passes whose gradient was zero throughout.
        invalid: Gradient passes whose gradient held NaN or infinity.
        stamp: The evaluation's stamp, as in its manifest; empty in folders of earlier versions.
        stage: Under a suite, the number of the stage in which the image left the cascade, from 1; 0 if the clean image
            is answered wrongly, -1 if it stands. None under any other attack.
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
    stage: int | None = None


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


def record_fields(record: Record) -> dict[str, Any]:
    """Returns what a record's line holds, without a stamp or stage that the record does not have."""
    optional = {"stamp": "", "stage": None}
    return {name: value for name, value in asdict(record).items() if name not in optional or value != optional[name]}


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Adds a line for each record to a file and waits until they are on the disk."""
    append_lines(path, map(record_fields, records))


def read_records(path: Path, stamp: str = "") -> list[Record]:
    """Returns the intact records of a file. Damaged lines and records of other evaluations are left out.

    Args:
        path: The file; a missing file gives no records.
        stamp: The evaluation's stamp, empty if its manifest has none. Records without a stamp always count.
    """
    names = {part.name for part in fields(Record)}
    lines = (line for line in read_lines(path) if has_types(line, RECORD) and line.keys() <= names)
    records = [Record(**line | {"draws": tuple(line["draws"])}) for line in lines]
    return [record for record in records if record.stamp in ("", stamp)]


def read_times(path: Path) -> list[dict[str, Any]]:
    """Returns the intact lines of a file of times: the "seconds" that a "block" of an "attack" took."""
    return [line for line in read_lines(path) if has_types(line, TIME)]


def has_types(line: dict[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    """Returns whether the line has these fields, each of one of its types."""
    return all(type(line.get(name)) in allowed for name, allowed in types.items())
