"""Accuracy against a setting, wherever an evaluation has attacks that differ in it alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from ..evaluation import CLEAN, Results
from ..evaluation.sanity import Threat
from ..evaluation.sanity.threat import families, valued
from ..evaluation.statistics import Estimate
from .rows import AttackRow

LABELS = {
    "epsilon": "epsilon, for pixels in [0, 1]",
    "steps": "steps, N_S",
    "realizations": "realizations a gradient or query, N_E",
}


class SweepPoint(NamedTuple):
    value: float
    accuracy: Estimate


@dataclass(frozen=True)
class Sweep:
    """
    Attributes:
        setting: its name.
        lines: points of growing value, by what the names of their attacks have in common.
    """

    setting: str
    lines: Mapping[str, Sequence[SweepPoint]]

    @property
    def label(self) -> str:
        return LABELS[self.setting]


def sweeps(results: Results, rows: Sequence[AttackRow]) -> list[Sweep]:
    """One for each setting that varies among the attacks of the rows; those of epsilon begin with the clean images."""
    found = []
    for setting in LABELS:
        lines: dict[str, Sequence[SweepPoint]] = {}
        for names, points in lines_of(results, rows, setting):
            common = shared(names)
            lines[common if common and common not in lines else f"{names[0]} to {names[-1]}"] = points
        if lines:
            found.append(Sweep(setting, lines))
    return found


def lines_of(
    results: Results, rows: Sequence[AttackRow], setting: str
) -> Iterator[tuple[list[str], list[SweepPoint]]]:
    """Names and points of the attacks that differ in the setting alone, where these are several."""
    by_name = {row.attack: row for row in rows}
    start = [SweepPoint(0.0, row.vote) for row in rows if row.attack == CLEAN and setting == "epsilon"]
    for family in families([Threat.of(name, results.attack(name)) for name in by_name], setting):
        points = [SweepPoint(valued(threat, setting), by_name[threat.name].vote) for threat in family]
        yield [threat.name for threat in family], start + points


def shared(names: Sequence[str]) -> str:
    """What all names say: the parts between commas that they share, or else the words; empty if there is nothing."""
    return common(names, ", ", r", ") or common(names, " ", r"[\s,;:]+")


def common(names: Sequence[str], joint: str, separator: str) -> str:
    """The parts that all names share; of names of unequal length, those that they begin with, or else end with."""
    split = [re.split(separator, name) for name in names]
    if len(set(map(len, split))) == 1:
        return joint.join(filter(None, alike(split)))
    first = takewhile(bool, alike(split))
    last = takewhile(bool, alike([parts[::-1] for parts in split]))
    return joint.join(first) or joint.join([*last][::-1])


def alike(rows: Sequence[Sequence[str]]) -> list[str]:
    """What the rows have in each place where all have the same, and nothing elsewhere."""
    return [column[0] if len(set(column)) == 1 else "" for column in zip(*rows, strict=False)]
