"""The attack methods of `neuroae attack`, and the settings that its options give them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from torch import nn

from ..attacks import APGDSettings, Average, LossName, PGDSettings, SquareSettings
from ..attacks.balls import Norm
from ..attacks.settings import R_FGSM_STEP, Schedule
from ..evaluation.attack import Attack, AttackSettings, Variant, Widths, attacks_from
from ..nn.defense import Defense
from ..nn.encoder import SELECTION
from ..utils.contexts import Precision

TITLES = {"pgd": "PGD", "fgsm": "FGSM", "r-fgsm": "R+FGSM", "apgd": "APGD", "square": "Square"}
GRADIENT_FREE = ("square",)
# The options that change something of each method.
GRADIENT_OPTIONS = {
    "mode",
    "source",
    "variant",
    "loss",
    "targeted",
    "restarts",
    "random_start",
    "realizations",
    "selection_width",
    "clamp_width",
    "average",
    "precision",
}
OPTIONS = {
    "pgd": GRADIENT_OPTIONS | {"step_size", "steps", "momentum", "schedule"},
    "fgsm": GRADIENT_OPTIONS,
    "r-fgsm": GRADIENT_OPTIONS,
    "apgd": GRADIENT_OPTIONS | {"steps"},
    "square": {"variant", "targeted", "realizations", "queries"},
}
# Options that may be repeated, and the settings that they set.
SWEPT = {"epsilon": ("epsilon",), "steps": ("steps",), "realizations": ("realizations", "draws")}


@dataclass(frozen=True)
class Budget:
    """The options of an attack, for all methods. None means the method's default."""

    epsilon: float
    step_size: float
    steps: int | None
    restarts: int | None
    random_start: bool
    realizations: int | None
    average: Average | None
    loss: LossName | None
    norm: Norm
    queries: int | None
    momentum: float | None
    schedule: Schedule | None

    def settings(self, method: str, mode: str = "") -> AttackSettings:
        """Returns the settings of a method, in a mode of ``evaluation.MODES`` or, with "", in none.

        Raises:
            ValueError: The options do not fit the method.
        """
        steps, common = drop_none(steps=self.steps), self.gradient_settings()
        match method:
            case "pgd":
                common |= drop_none(momentum=self.momentum, schedule=self.schedule)
                kind = PGDSettings.selection_recipe if mode == SELECTION else PGDSettings
                return kind(step_size=self.step_size, **steps, **common)
            case "fgsm":
                return PGDSettings(step_size=self.epsilon, steps=1, **common)
            case "r-fgsm":
                return PGDSettings(step_size=R_FGSM_STEP * self.epsilon, steps=1, **common | {"random_start": True})
            case "apgd":
                return APGDSettings(**steps, **common)
            case _:
                search = drop_none(queries=self.queries, draws=self.realizations)
                return SquareSettings(self.epsilon, norm=self.norm, **search)

    def gradient_settings(self) -> dict[str, Any]:
        """Returns the settings that all methods with gradients share."""
        return {
            "epsilon": self.epsilon,
            "random_start": self.random_start,
            "norm": self.norm,
            **drop_none(restarts=self.restarts, realizations=self.realizations, average=self.average, loss=self.loss),
        }


@dataclass(frozen=True)
class SingleAttacks:
    """The options of single attacks by the methods of this package.

    Attributes:
        methods: Keys of ``TITLES``.
        modes: Keys of ``evaluation.MODES``, for sources that are defenses.
        budgets: The budget of each combination of repeated options.
        repeated: The user's values of each option of ``SWEPT``, by its name.
        precision, variant, widths, targeted: As in ``evaluation.Attack``.
    """

    methods: Sequence[str]
    modes: Sequence[str]
    budgets: Sequence[Budget]
    repeated: Mapping[str, Sequence[float] | None]
    precision: Precision
    variant: Variant | None
    widths: Widths
    targeted: bool

    def on(self, sources: Mapping[str, nn.Module], random: Mapping[str, bool]) -> Iterator[Attack]:
        """Yields the attacks that are crafted on each source.

        Args:
            sources: The sources by their names in tables; the attacked model has an empty name.
            random: Whether each source draws, by the same names.
        """
        for name, method in product(sources, self.methods):
            if name and method in GRADIENT_FREE:  # the source would not matter
                continue
            crafted = self.on_source(name, method, sources, random)
            if self.targeted:
                crafted = [replace(attack, name=f"{attack.name}, targeted", targeted=True) for attack in crafted]
            yield from name_by_settings(crafted, **self.repeated)

    def on_source(
        self, name: str, method: str, sources: Mapping[str, nn.Module], random: Mapping[str, bool]
    ) -> list[Attack]:
        """Returns the attacks of one method on the source of a name, in all modes and budgets."""
        network = sources[name]
        return [
            attack
            for budget, mode in product(self.budgets, choose_modes(network, method, self.modes))
            for attack in attacks_from(
                network,
                budget.settings(method, mode),
                [mode] if mode else [],
                self.precision,
                name,
                choose_variant(self.variant, network, sources),
                random[name],
                TITLES[method],
                random[""],
                self.widths,
            )
        ]


def require_use(options: Mapping[str, object], methods: Sequence[str]) -> None:
    """Raises ValueError for a method that does not exist, or an option that no attack uses.

    Args:
        options: The options of single attacks by name; None or False if the user did not set them.
        methods: The methods of the attacks, without functions of the user.
    """
    for method in methods:
        if method not in OPTIONS:
            raise ValueError(f"attack is {method!r}, expected one of {', '.join(OPTIONS)}, or MODULE:FUNCTION")
    used = {name for method in methods for name in OPTIONS[method]}
    for name, value in options.items():
        if is_given(value) and name not in used:
            fitting = ", ".join(method for method, names in OPTIONS.items() if name in names)
            raise ValueError(f"--{name.replace('_', '-')} is given, which no attack uses, expected --attack {fitting}")


def is_given(value: object) -> bool:
    """Returns whether the user set an option that is None or False by default; 0 is a value."""
    return value is not None and value is not False


def drop_none(**options: object) -> dict[str, Any]:
    """Returns the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def name_by_settings(attacks: Sequence[Attack], **options: Sequence[float] | None) -> Sequence[Attack]:
    """Returns the attacks with their values of repeated options in their names.

    If an option does not affect the method or the source, all its values make the same attack, which is returned once.

    Args:
        attacks: Attacks of one method on one source.
        options: The user's values of each option of ``SWEPT``, by its name.
    """
    repeated = [option for option, values in options.items() if values and len(values) > 1]
    if not repeated:
        return attacks
    named = {}
    for attack in attacks:
        settings = asdict(attack.settings)
        values = [f"{option} {settings[field]}" for option in repeated for field in SWEPT[option] if field in settings]
        named[", ".join([attack.name, *values])] = attack
    return [replace(attack, name=name) for name, attack in named.items()]


def choose_modes(source: nn.Module, method: str, modes: Sequence[str]) -> Sequence[str]:
    """Returns the modes that make different attacks; only "" on a classifier, and for a method without gradients."""
    return modes if isinstance(source, Defense) and method not in GRADIENT_FREE else [""]


def choose_variant(variant: Variant | None, source: nn.Module, sources: Mapping[str, nn.Module]) -> Variant | None:
    """Returns the variant for a source; None for a classifier beside a defense, for which the variant is meant."""
    has_defense = any(isinstance(network, Defense) for network in sources.values())
    return None if has_defense and not isinstance(source, Defense) else variant
