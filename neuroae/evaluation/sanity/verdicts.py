"""Which images are answered rightly under each attack, and whether two attacks differ by more than noise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scipy.stats import binomtest

from ..records import Record
from ..statistics import Accuracy
from .check import Verdict

SIGNIFICANT = 0.05


class Verdicts:
    """The images under one attack, by their ids.

    Attributes:
        attack: its name.
        right: image id to whether the vote on the scoring draws is right.
        held: share of the images that the attack does not fool on the selection draws, in [0, 1].
    """

    def __init__(self, attack: str, records: Iterable[Record]) -> None:
        found = list(records)
        self.attack = attack
        self.right = {record.image: record.vote == record.label for record in found}
        self.held = sum(record.selection <= 0 for record in found) / len(found)

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(sum(self.right.values()), len(self.right))


class Pairs(NamedTuple):
    """Two attacks on the same images.

    Attributes:
        images: that both have.
        first_accuracy, second_accuracy: on these, in [0, 1].
        first, second: images that only the first, or only the second, fools.
        p: of the exact two-sided McNemar test: as uneven a split, were both equally strong.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    first: int
    second: int
    p: float

    @classmethod
    def of(cls, first: Mapping[int, bool], second: Mapping[int, bool]) -> "Pairs | None":
        """From image ids to whether the answer is right; None where they have no image in common."""
        common = first.keys() & second.keys()
        if not common:
            return None
        by_first = sum(second[image] and not first[image] for image in common)
        by_second = sum(first[image] and not second[image] for image in common)
        apart = by_first + by_second
        return cls(
            len(common),
            sum(first[image] for image in common) / len(common),
            sum(second[image] for image in common) / len(common),
            by_first,
            by_second,
            float(binomtest(by_first, apart).pvalue) if apart else 1.0,
        )

    @property
    def significant(self) -> bool:
        """Whether they differ by more than noise."""
        return self.p < SIGNIFICANT

    @property
    def verdict(self) -> Verdict:
        """Whether the first fools no less: "warn" where it fools less within noise, and "fail" where beyond."""
        if self.first >= self.second:
            return "pass"
        return "fail" if self.significant else "warn"


def records_of(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Those of each attack, by its name, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.attack, []).append(record)
    return found


def strongest(attacks: Iterable[Verdicts]) -> Verdicts:
    """That which fools most on the selection draws, so that scoring draws choose nothing; of equals the first."""
    return min(attacks, key=lambda attack: attack.held)
