"""Attacks beside the first of their evaluation, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..evaluation import CLEAN, Results
from ..evaluation.sanity.verdicts import Pairs, Verdicts
from ..markdown import table

COLUMNS = ("attack", "images", "fooled by it alone", "fooled by the first alone", "p")
TITLE = "Against the first attack"


@dataclass(frozen=True)
class Pairing:
    """
    Attributes:
        first: the attack that the others are compared with.
        others: what each of them and the first do to the images that both have, by its name; the first in a pair is
            the other attack.
    """

    first: str
    others: Mapping[str, Pairs]

    @property
    def note(self) -> str:
        return (
            f"Each attack beside {self.first}: images that one of the two fools and the other does not, on the "
            "scoring draws, and p of McNemar's exact two-sided test, not corrected for the number of rows."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under ``COLUMNS``."""
        return [
            (name, f"{pairs.images:,}", f"{pairs.first:,}", f"{pairs.second:,}", f"{pairs.p:.2g}")
            for name, pairs in self.others.items()
        ]

    def markdown(self) -> str:
        return table(COLUMNS, self.rows())

    def as_json(self) -> dict[str, Any]:
        return {"first": self.first, "others": {name: pairs._asdict() for name, pairs in self.others.items()}}


def pairing(results: Results) -> Pairing | None:
    """None where there are no two attacks on common images."""
    attacks = [Verdicts(name, own) for name, own in results.records.items() if own and name != CLEAN]
    found = {attack.attack: Pairs.of(attack.right, attacks[0].right) for attack in attacks[1:]}
    others = {name: pairs for name, pairs in found.items() if pairs is not None}
    return Pairing(attacks[0].attack, others) if others else None
