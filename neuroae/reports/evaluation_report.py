"""What an evaluation's folder says: a row an attack, what the attacks come to together, and the sanity report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import Results
from ..evaluation.sanity import BATCHES, VERDICTS, Check
from .evaluation_table import markdown
from .loading import is_finished, load_so_far
from .pairs import Pairing, pairing
from .rows import AttackRow, attack_rows, joint_rows
from .sanity import sanity_checks

FIXED_MASKS = "FIXED MASKS, for debugging: these results say nothing about the random model."
BATCH_DEPENDENT = (
    "NOT ROBUSTNESS: the model answers an image by the images beside it, so these accuracies hold for these batches "
    "alone; see the sanity report."
)
UNFINISHED = "UNFINISHED: accuracies are of the images that are done, which may not be the same for all attacks."


@dataclass(frozen=True, eq=False)
class Report:
    """
    Attributes:
        results: of the evaluation, as far as it is done.
        rows: of the attacks.
        joint: of the attacks of one budget together.
        paired: the attacks beside the first; None where there are no two.
        checks: the sanity report.
    """

    results: Results
    rows: Sequence[AttackRow]
    joint: Sequence[AttackRow]
    paired: Pairing | None
    checks: Sequence[Check]

    @classmethod
    def of(cls, folder: Path) -> "Report":
        """Read from an evaluation's folder; see ``load_so_far``."""
        results = load_so_far(folder)
        return cls(results, attack_rows(results), joint_rows(results), pairing(results), sanity_checks(results))

    @property
    def finished(self) -> bool:
        return is_finished(self.results)

    @property
    def warnings(self) -> list[str]:
        """What must be known before any number is read."""
        dependent = any(check.name == BATCHES and check.verdict == "fail" for check in self.checks)
        found = {
            FIXED_MASKS: self.results.deterministic,
            BATCH_DEPENDENT: dependent,
            UNFINISHED: not self.finished,
        }
        return [text for text, holds in found.items() if holds]

    @property
    def table(self) -> str:
        """Of all rows, in Markdown."""
        return markdown([*self.rows, *self.joint])

    @property
    def verdicts(self) -> dict[str, int]:
        """How many checks passed, warned and failed."""
        count = Counter(check.verdict for check in self.checks)
        return {verdict: count[verdict] for verdict in VERDICTS}

    def __str__(self) -> str:
        """For a terminal."""
        parts = [*self.warnings, self.table, "\n".join(check.line for check in self.checks)]
        return "\n\n".join(parts)
