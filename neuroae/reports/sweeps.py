"""Accuracy against a setting, wherever an evaluation has attacks that differ in it alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from ..evaluation import CLEAN, Results
from ..evaluation.sanity import Threat
from ..evaluation.statistics import Estimate
from .rows import AttackRow

# A setting, and those that follow from it.
VARIED = {"epsilon": ("epsilon", "step_size"), "steps": ("steps", "step_size"), "realizations": ("realizations",)}
LABELS = {
    "epsilon": "epsilon, for pixels in [0, 1]",
    "steps": "steps, N_S",
    "realizations": "realizations a gradient, N_E",
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
    for setting in VARIED:
        lines = {common_words(names): points for names, points in families(results, rows, setting)}
        if lines:
            found.append(Sweep(setting, lines))
    return found


def families(
    results: Results, rows: Sequence[AttackRow], setting: str
) -> Iterator[tuple[list[str], list[SweepPoint]]]:
    """Names and points of the attacks that differ in the setting alone, where these are several."""
    members: dict[str, dict[float, AttackRow]] = {}
    for row in rows:
        threat = Threat.of(row.attack, results.attack(row.attack))
        value = threat.settings.get(setting)
        if value is not None:
            members.setdefault(threat.family(*VARIED[setting]), {})[value] = row
    start = [SweepPoint(0.0, row.vote) for row in rows if row.attack == CLEAN and setting == "epsilon"]
    for own in members.values():
        if len(own) > 1:
            points = [SweepPoint(value, own[value].vote) for value in sorted(own)]
            yield [row.attack for row in own.values()], start + points


def common_words(names: Sequence[str]) -> str:
    """The words that all names share; of names of unequal length, those that they begin with.

    The first name where there are none.
    """
    split = [re.split(r"[\s,;:]+", name) for name in names]
    shared = [column[0] if len(set(column)) == 1 else "" for column in zip(*split, strict=False)]
    if len(set(map(len, split))) > 1:
        shared = list(takewhile(bool, shared))
    return " ".join(filter(None, shared)) or names[0]
