"""What an attack may do, as checks and reports ask for it."""

import json
from collections.abc import Mapping
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
        return f"{self.norm} {round(levels)}/255" if whole else f"{self.norm} {self.epsilon:.4g}"


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

    def family(self, *varied: str) -> str:
        """The same for attacks that differ in the varied settings alone."""
        rest = {key: value for key, value in self.settings.items() if key not in varied}
        return json.dumps([self.access, self.crafting, rest], sort_keys=True)
