"""The attacks that `neuroae attack` knows by name, and their settings as the options give them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..attacks import APGDSettings, Average, LossName, PGDSettings, SquareSettings
from ..attacks.balls import Norm
from ..attacks.settings import R_FGSM_STEP, Schedule
from ..evaluation.attack import Attack, AttackSettings
from ..nn.encoder import SELECTION

TITLES = {"pgd": "PGD", "fgsm": "FGSM", "r-fgsm": "R+FGSM", "apgd": "APGD", "square": "Square"}
WITHOUT_GRADIENTS = ("square",)
# Options of which several values make several attacks, and the settings that they decide.
SWEPT = {"epsilon": ("epsilon",), "steps": ("steps",), "realizations": ("realizations", "draws")}


@dataclass(frozen=True)
class Budget:
    """What the options say, for all methods alike; None leaves a method its own default."""

    epsilon: float
    step_size: float
    steps: int | None
    restarts: int
    random_start: bool
    realizations: int | None
    average: Average
    loss: LossName | None
    norm: Norm
    queries: int
    momentum: float | None = None
    schedule: Schedule | None = None

    def settings(self, method: str, mode: str = "") -> AttackSettings:
        """Those of a method, under a mode of ``evaluation.MODES`` or none.

        Raises:
            ValueError: there is no such method, or they do not fit it.
        """
        steps, common = given(steps=self.steps), self.gradient_settings()
        if method != "pgd" and (self.momentum is not None or self.schedule is not None):
            raise ValueError(f"momentum and schedule are of the attack 'pgd', and attack is {method!r}")
        match method:
            case "pgd":
                common |= given(momentum=self.momentum, schedule=self.schedule)
                kind = PGDSettings.selection_recipe if mode == SELECTION else PGDSettings
                return kind(step_size=self.step_size, **steps, **common)
            case "fgsm":
                return PGDSettings(step_size=self.epsilon, steps=1, **common)
            case "r-fgsm":
                return PGDSettings(step_size=R_FGSM_STEP * self.epsilon, steps=1, **common | {"random_start": True})
            case "apgd":
                return APGDSettings(**steps, **common)
            case "square" if self.norm == "linf":
                return SquareSettings(self.epsilon, self.queries, **given(draws=self.realizations))
            case "square":
                raise ValueError(f"norm is {self.norm!r}, expected 'linf' for the attack 'square'")
        raise ValueError(f"attack is {method!r}, expected one of {', '.join(TITLES)}")

    def gradient_settings(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "restarts": self.restarts,
            "random_start": self.random_start,
            "average": self.average,
            "norm": self.norm,
            **given(realizations=self.realizations, loss=self.loss),
        }


def given(**options: object) -> dict[str, Any]:
    """Those options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def repeated(**options: Sequence[float] | None) -> list[str]:
    """Names of the options that were given several values."""
    return [name for name, values in options.items() if values and len(values) > 1]


def named_by_settings(attacks: Sequence[Attack], swept: Sequence[str]) -> list[Attack]:
    """The attacks with the values of the swept options in their names.

    A method without such a setting, and a source that draws nothing, make the same attack of all values: it is there
    once.
    """
    named = {}
    for attack in attacks:
        settings = asdict(attack.settings)
        values = [f"{option} {settings[field]}" for option in swept for field in SWEPT[option] if field in settings]
        named[", ".join([attack.name, *values])] = attack
    return [replace(attack, name=name) for name, attack in named.items()]
