"""Accuracies of models in memory as a table."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..evaluation import Outcome
from ..markdown import table

COLUMNS = ("model", "attack", "accuracy", "95% interval", "images", "seconds", "gradient passes", "no gradient")
TEXT_COLUMNS = 2


@dataclass(frozen=True)
class Row:
    """One accuracy.

    Attributes:
        model, attack: names.
        accuracy, low, high: in [0, 1]; the ends are of the 95% confidence interval.
        images: how many were scored.
        seconds: wall time of crafting and scoring.
        passes: gradient passes, in images times realizations.
        unusable: of them those that gave no gradient (zero, NaN or infinite).
    """

    model: str
    attack: str
    accuracy: float
    low: float
    high: float
    images: int
    seconds: float
    passes: int
    unusable: int

    @classmethod
    def of(cls, model: str, outcome: Outcome) -> "Row":
        accuracy = outcome.accuracy
        return cls(
            model,
            outcome.name,
            accuracy.value,
            *accuracy.interval(),
            accuracy.images,
            outcome.seconds,
            outcome.passes,
            outcome.zero + outcome.invalid,
        )

    def cells(self) -> tuple[str, ...]:
        return (
            self.model,
            self.attack,
            f"{self.accuracy:.1%}",
            f"{self.low:.1%} to {self.high:.1%}",
            f"{self.images:,}",
            f"{self.seconds:.1f}",
            f"{self.passes:,}" if self.passes else "",
            f"{self.unusable / self.passes:.1%}" if self.passes else "",
        )


def markdown_table(rows: Iterable[Row]) -> str:
    """A line a row under the names of the columns."""
    return table(COLUMNS, (row.cells() for row in rows), TEXT_COLUMNS)
