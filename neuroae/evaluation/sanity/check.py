"""A line of the sanity report."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...storage import load_json, save_json

Verdict = Literal["pass", "warn", "fail"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Check:
    """
    Attributes:
        name: what ought to hold.
        verdict: "pass"; "warn" where it does not hold but noise may be the reason, or where it was not measured;
            "fail".
        found: what was measured, in words.
        meaning: why it matters.
        advice: what to do, empty where it passed.
        numbers: what was measured.
    """

    name: str
    verdict: Verdict
    found: str
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
        """Verdict, name and numbers; what to do below them where it did not pass."""
        first = f"{self.verdict.upper()}  {self.name}: {self.found}"
        return f"{first}\n      {self.advice}" if self.advice else first


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=VERDICTS.index, default="pass")


def graded(value: float, warn: float, fail: float) -> Verdict:
    """Of a number that ought to be small: "warn" above the first limit, "fail" above the second."""
    return "fail" if value > fail else "warn" if value > warn else "pass"


def merged(known: Iterable[Check], others: Iterable[Check]) -> list[Check]:
    """The known checks, in place of one that did not measure another of its name, and then the others."""
    left = {check.name: check for check in others}
    first = [check if check.measured else left.get(check.name, check) for check in known]
    names = {check.name for check in first}
    return first + [check for name, check in left.items() if name not in names]


def save_checks(path: Path, checks: Iterable[Check]) -> None:
    save_json(path, [asdict(check) for check in checks])


def load_checks(path: Path) -> list[Check]:
    """What ``save_checks`` wrote."""
    stored = load_json(path)
    try:
        return [Check(**fields) for fields in stored]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold checks: {error}") from error
