"""What an attack may do, as checks and reports ask for it."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


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
