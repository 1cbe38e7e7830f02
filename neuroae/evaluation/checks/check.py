"""A line of the sanity report."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ...utils.files import load_json, save_json


class Budget(NamedTuple):
    """
    Attributes:
        norm: "linf" or "l2".
        epsilon: radius of the ball, on the scale of pixels in [0, 1].
    """

    norm: str
    epsilon: float

    def __str__(self) -> str:
        levels = 255 * self.epsilon
        whole = self.norm == "linf" and abs(levels - round(levels)) < 1e-6
        return f"{self.norm} {round(levels)}/255" if whole else f"{self.norm} {self.epsilon:.6g}"


# Settings that may vary, by all their names, and the step size of the one that it goes with.
NAMES = {"epsilon": ("epsilon",), "steps": ("steps",), "realizations": ("realizations", "draws")}
VARIED = NAMES | {"epsilon": ("epsilon", "step_size")}


@dataclass(frozen=True)
class Threat:
    """
    Attributes:
        name: of the attack, as in its records.
        access: "white-box" where gradients are the attacked model's own, "transfer" where they are another's,
            "gradient-free"; "clean" where there is no attack. Others are compared with nothing.
        settings: of the attack.
        crafting: what else decides how images are crafted: the method, the source, its surrogate gradient.
    """

    name: str
    access: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    crafting: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, identity: Mapping[str, Any]) -> "Threat":
        """From what an evaluation's manifest says of the attack."""
        crafting = {key: identity.get(key) for key in ("method", "source", "surrogate", "variant", "precision")}
        return cls(name, identity["access"], identity.get("settings", {}), crafting)

    @property
    def budget(self) -> Budget | None:
        """None where there is none; attacks that know one norm do not name it."""
        epsilon = self.settings.get("epsilon")
        return None if epsilon is None else Budget(self.settings.get("norm", "linf"), epsilon)

    def value(self, setting: str) -> float | None:
        """Of a setting that may vary, whatever the attack calls it; None where it has no such setting."""
        return next((self.settings[name] for name in NAMES[setting] if self.settings.get(name) is not None), None)

    def family(self, *varied: str) -> str:
        """The same for attacks that differ in the varied settings alone."""
        rest = {key: value for key, value in self.settings.items() if key not in varied}
        return json.dumps([self.access, self.crafting, rest], sort_keys=True)

    def step(self, setting: str) -> float | None:
        """The step size, beside epsilon where that is what varies."""
        size = self.settings.get("step_size")
        epsilon = self.settings.get("epsilon")
        return round(size / epsilon, 9) if size and epsilon and setting == "epsilon" else size


def families(threats: Iterable[Threat], setting: str) -> list[list[Threat]]:
    """Attacks that differ in a setting alone, two at least, by its growing values.

    The step size may go with epsilon. Where several attacks have one value, those of equal steps belong together.
    """
    found = []
    having = [threat for threat in threats if threat.value(setting) is not None]
    for own in grouped(having, lambda threat: threat.family(*VARIED[setting])):
        one_each = len({threat.value(setting) for threat in own}) == len(own)
        found += [own] if one_each else grouped(own, lambda threat: threat.step(setting))
    by_value = [{valued(threat, setting): threat for threat in own} for own in found]
    return [[own[value] for value in sorted(own)] for own in by_value if len(own) > 1]


def valued(threat: Threat, setting: str) -> float:
    value = threat.value(setting)
    assert value is not None
    return value


def grouped(threats: Iterable[Threat], key: Callable[[Threat], object]) -> list[list[Threat]]:
    found: dict[object, list[Threat]] = {}
    for threat in threats:
        found.setdefault(key(threat), []).append(threat)
    return list(found.values())


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
