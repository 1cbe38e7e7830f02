"""What is kept of each image under each attack: a line of JSON with a checksum, appended as soon as it is known."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .lines import append_lines, read_lines, sealed

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


def record_line(record: Record) -> str:
    return sealed(asdict(record))


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Adds lines to a file and waits until they are on the disk."""
    append_lines(path, map(asdict, records))


def read_records(path: Path) -> list[Record]:
    """The whole records of a file; damaged lines are left out, to be made again. No file gives none."""
    return [Record(**fields | {"draws": tuple(fields["draws"])}) for fields in read_lines(path)]
