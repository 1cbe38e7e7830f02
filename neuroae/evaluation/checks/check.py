"""A check of the sanity report: its verdict, its numbers, and how a folder keeps it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ...utils.files import load_json, save_json

Verdict = Literal["pass", "warn", "fail"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Check:
    """One line of the sanity report.

    Attributes:
        name: What should hold.
        verdict: "pass" where it holds; "warn" where it does not hold but noise may be the reason, or where it was not
            measured; "fail" where it does not hold.
        finding: What was measured, in words.
        meaning: Why it matters.
        advice: What to do; empty where the check passed.
        numbers: What was measured; empty where nothing was.

    Raises:
        ValueError: ``verdict`` is unknown.
    """

    name: str
    verdict: Verdict
    finding: str
    meaning: str
    advice: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict is {self.verdict!r}, expected one of {', '.join(VERDICTS)}")

    @property
    def measured(self) -> bool:
        return bool(self.numbers)

    @property
    def line(self) -> str:
        """Verdict, name and finding, with the advice on a second line."""
        first = f"{self.verdict.upper()}  {self.name}: {self.finding}"
        return f"{first}\n      {self.advice}" if self.advice else first


def unmeasured(name: str, reason: str, meaning: str, advice: str) -> Check:
    """Returns the warning of a check that could not be made, for a reason."""
    return Check(name, "warn", f"not measured: {reason}", meaning, advice)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns the worst of the verdicts, "pass" for none."""
    return max(verdicts, key=VERDICTS.index, default="pass")


def graded(value: float, warn: float, fail: float) -> Verdict:
    """Returns the verdict on a number that should be small: "warn" above one limit, "fail" above the other."""
    return "fail" if value > fail else "warn" if value > warn else "pass"


def merged(checks: Iterable[Check], others: Iterable[Check]) -> list[Check]:
    """Returns the checks, with another of the same name in place of one that was not measured, and the other rest."""
    by_name = {check.name: check for check in others}
    first = [check if check.measured else by_name.get(check.name, check) for check in checks]
    names = {check.name for check in first}
    return first + [check for name, check in by_name.items() if name not in names]


# What folders of earlier versions call fields and checks, and their names now.
EARLIER_FIELDS = {"found": "finding"}
EARLIER_NAMES = {"scores are not of single draws": "a random model is scored on several draws"}


def save_checks(path: Path, checks: Iterable[Check]) -> None:
    save_json(path, [asdict(check) for check in checks])


def load_checks(path: Path) -> list[Check]:
    """Returns the checks that ``save_checks`` of this or an earlier version wrote.

    Raises:
        ValueError: The file holds something else.
    """
    stored = load_json(path)
    try:
        return [check_of(fields) for fields in stored]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold checks: {error}") from error


def check_of(fields: dict[str, Any]) -> Check:
    check = Check(**{EARLIER_FIELDS.get(name, name): value for name, value in fields.items()})
    return Check(**asdict(check) | {"name": EARLIER_NAMES.get(check.name, check.name)})
