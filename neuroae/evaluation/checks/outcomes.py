"""Checks that set attacks against each other: whether the attack that should be stronger is.

Noise is judged by pairs of verdicts on the same images.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scipy.stats import binomtest

from ..records import CLEAN, Record
from ..statistics import Accuracy
from .check import Check, Verdict, unmeasured, worst

SIGNIFICANT = 0.05


class Budget(NamedTuple):
    """How far an attack may move an image.

    Attributes:
        norm: "linf" or "l2".
        epsilon: The radius of the ball, for pixels in [0, 1].
    """

    norm: str
    epsilon: float

    def __str__(self) -> str:
        levels = 255 * self.epsilon
        is_integer = self.norm == "linf" and abs(levels - round(levels)) < 1e-6
        return f"{self.norm} {round(levels)}/255" if is_integer else f"{self.norm} {self.epsilon:.6g}"


# The names under which attacks have a setting, and the settings that may vary together with it.
SETTING_NAMES = {"epsilon": ("epsilon",), "steps": ("steps",), "realizations": ("realizations", "draws")}
VARYING = SETTING_NAMES | {"epsilon": ("epsilon", "step_size")}


@dataclass(frozen=True)
class Threat:
    """What an attack may do.

    Attributes:
        name: The attack's name, as in its records.
        access: "white-box" for gradients of the attacked model, "transfer" for those of another model,
            "gradient-free", or "clean" for no attack. Attacks with any other access are compared with nothing.
        settings: The attack's settings.
        crafting: What else decides the crafted images: method, source, surrogate gradient, variant, precision.
    """

    name: str
    access: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    crafting: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, identity: Mapping[str, Any]) -> "Threat":
        """Returns the threat of an attack with this identity in the manifest."""
        crafting = {key: identity.get(key) for key in ("method", "source", "surrogate", "variant", "precision")}
        return cls(name, identity["access"], identity.get("settings", {}), crafting)

    @property
    def budget(self) -> Budget | None:
        """The attack's budget, None without an epsilon. Attacks without a setting for the norm use l-infinity."""
        epsilon = self.settings.get("epsilon")
        return None if epsilon is None else Budget(self.settings.get("norm", "linf"), epsilon)

    def value(self, setting: str) -> float | None:
        """Returns the value of a key of ``SETTING_NAMES``, whatever the attack calls it; None if it has none."""
        values = (self.settings.get(name) for name in SETTING_NAMES[setting])
        return next((value for value in values if value is not None), None)

    def family(self, *varying: str) -> str:
        """Returns a key that attacks share if they differ in the varying settings alone."""
        rest = {key: value for key, value in self.settings.items() if key not in varying}
        return json.dumps([self.access, self.crafting, rest], sort_keys=True)

    def step(self, setting: str) -> float | None:
        """Returns the step size, relative to epsilon where epsilon is the setting that varies."""
        size = self.settings.get("step_size")
        epsilon = self.settings.get("epsilon")
        return round(size / epsilon, 9) if size and epsilon and setting == "epsilon" else size


class SettingPoint(NamedTuple):
    """An attack and its value of the setting in which its family differs."""

    value: float
    threat: Threat


def families(threats: Iterable[Threat], setting: str) -> list[list[SettingPoint]]:
    """Returns the families of attacks that differ in one setting alone, at least two each, by growing value.

    The step size may vary together with epsilon. Where several attacks have the same value, those with equal step
    sizes form a family.
    """
    points = [SettingPoint(value, threat) for threat in threats if (value := threat.value(setting)) is not None]
    groups = []
    for family in grouped(points, lambda point: point.threat.family(*VARYING[setting])):
        values_differ = len({point.value for point in family}) == len(family)
        groups += [family] if values_differ else grouped(family, lambda point: point.threat.step(setting))
    by_value = [{point.value: point for point in group} for group in groups]
    return [[group[value] for value in sorted(group)] for group in by_value if len(group) > 1]


def grouped(points: Iterable[SettingPoint], key: Callable[[SettingPoint], object]) -> list[list[SettingPoint]]:
    groups: dict[object, list[SettingPoint]] = {}
    for point in points:
        groups.setdefault(key(point), []).append(point)
    return list(groups.values())


class Verdicts:
    """Which images of an attack are classified correctly.

    Attributes:
        attack: The attack's name.
        right: Image id to whether the vote of the scoring draws is right.
        selection_accuracy: Share of the images that the attack does not fool on the selection draws, in [0, 1].
    """

    def __init__(self, attack: str, records: Iterable[Record]) -> None:
        records = list(records)
        self.attack = attack
        self.right = {record.image: record.vote == record.label for record in records}
        self.selection_accuracy = sum(record.selection <= 0 for record in records) / len(records)

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(sum(self.right.values()), len(self.right))


class Pairs(NamedTuple):
    """Two attacks on the same images.

    Attributes:
        images: The number of images that both have.
        first_accuracy: Accuracy under the first attack on these images, in [0, 1].
        second_accuracy: Accuracy under the second attack on them, in [0, 1].
        first: Images that only the first attack fools.
        second: Images that only the second attack fools.
        p: The p-value of McNemar's exact two-sided test, the probability of so uneven a split between equal attacks.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    first: int
    second: int
    p: float

    @classmethod
    def of(cls, first: Mapping[int, bool], second: Mapping[int, bool]) -> "Pairs | None":
        """Returns the pairs of two ``Verdicts.right``; None where they have no image in common."""
        common = first.keys() & second.keys()
        if not common:
            return None
        by_first = sum(second[image] and not first[image] for image in common)
        by_second = sum(first[image] and not second[image] for image in common)
        apart = by_first + by_second
        return cls(
            len(common),
            sum(first[image] for image in common) / len(common),
            sum(second[image] for image in common) / len(common),
            by_first,
            by_second,
            float(binomtest(by_first, apart).pvalue) if apart else 1.0,
        )

    @property
    def significant(self) -> bool:
        """Whether the attacks differ by more than noise."""
        return self.p < SIGNIFICANT

    @property
    def verdict(self) -> Verdict:
        """ "pass" where the first attack fools no fewer images, "warn" where fewer within noise, else "fail"."""
        if self.first >= self.second:
            return "pass"
        return "fail" if self.significant else "warn"


def records_of(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Returns the records of each attack by its name, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.attack, []).append(record)
    return groups


def strongest(attacks: Iterable[Verdicts]) -> Verdicts:
    """Returns the attack that fools most on the selection draws, so that scoring draws choose nothing."""
    return min(attacks, key=lambda attack: attack.selection_accuracy)


Kind = Callable[[Threat], bool]


class Comparison(NamedTuple):
    """A check that attacks of one kind are no weaker than those of another.

    Attributes:
        name: The check's name.
        stronger: Whether an attack is of the kind that should be no weaker.
        weaker: Whether an attack is of the kind to compare with.
        missing: What to evaluate where an evaluation lacks one of the two.
        meaning: The check's meaning.
        advice: The check's advice.
    """

    name: str
    stronger: Kind
    weaker: Kind
    missing: str
    meaning: str
    advice: str


def is_white_box(threat: Threat) -> bool:
    return threat.access == "white-box"


def is_transfer(threat: Threat) -> bool:
    return threat.access == "transfer"


def is_gradient_free(threat: Threat) -> bool:
    return threat.access == "gradient-free"


def is_iterative(threat: Threat) -> bool:
    return is_white_box(threat) and threat.settings.get("steps", 1) > 1


def is_single_step(threat: Threat) -> bool:
    """Returns whether the attack is one step that reaches the edge of the ball: a shorter one has no chance."""
    settings = threat.settings
    reaches = settings.get("step_size", settings.get("epsilon", 0)) >= settings.get("epsilon", 0)
    return is_white_box(threat) and settings.get("steps") == 1 and reaches


ITERATIVE = Comparison(
    "an iterative attack is no weaker than a single step",
    is_iterative,
    is_single_step,
    "a white-box attack of one step as long as the budget and one of several steps, at the same budget",
    "Several steps reach whatever one step reaches. If they do worse, the gradient is good only at the clean image.",
    "Try smaller steps, more realizations per gradient and random starts before you trust the accuracy.",
)
TRANSFER = Comparison(
    "a white-box attack is no weaker than transfer",
    is_white_box,
    is_transfer,
    "a white-box attack and a transfer attack at the same budget",
    "A model's own gradient tells more than another model's. If it does worse, the model hides its gradient.",
    "Report the accuracy under the transfer attack, and look for a better surrogate gradient.",
)
GRADIENT_FREE = Comparison(
    "a white-box attack is no weaker than a gradient-free one",
    is_white_box,
    is_gradient_free,
    "a white-box attack and a gradient-free attack at the same budget",
    "A gradient tells more than a search that only compares answers. A gradient that does worse leads nowhere.",
    "Report the accuracy under the gradient-free attack, and look for a better surrogate gradient.",
)
COMPARISONS = (ITERATIVE, TRANSFER, GRADIENT_FREE)
NOTHING_FOOLED = "Compare attacks that fool some images: use more images, more steps or a larger epsilon."


class Matchup(NamedTuple):
    """The strongest attacks of two kinds at one budget, on the images that both have.

    Attributes:
        budget: The budget of both.
        stronger: The attack that should be no weaker.
        weaker: The attack that it is compared with.
        pairs: The two on the same images, the stronger first.
        fooled: Images that at least one of them fools and that are classified correctly when clean.
    """

    budget: Budget
    stronger: Verdicts
    weaker: Verdicts
    pairs: Pairs
    fooled: int

    @property
    def verdict(self) -> Verdict:
        """The verdict of the pairs; "warn" where neither attack fools an image, so that they cannot be compared."""
        return self.pairs.verdict if self.fooled else "warn"

    def __str__(self) -> str:
        first, second, pairs = self.stronger.attack, self.weaker.attack, self.pairs
        counts = f"{pairs.first} fooled only by the former, {pairs.second} only by the latter, p = {pairs.p:.2g}"
        return (
            f"{self.budget}: {first} leaves {pairs.first_accuracy:.1%} and {second} {pairs.second_accuracy:.1%} of "
            f"{pairs.images:,} images ({counts if self.fooled else 'neither fools one'})"
        )


def compare(comparison: Comparison, threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> Check:
    """Compares the strongest attacks of two kinds at every budget.

    One of the two should fool more images. The check passes where it does at every budget: where it alone fools at
    least as many images as the other alone. Each strongest attack is chosen on the selection draws.
    """
    matchups = list(find_matchups(comparison, threats, verdicts))
    if not matchups:
        reason, advice = f"needs {comparison.missing}", f"Evaluate {comparison.missing}."
        return unmeasured(comparison.name, reason, comparison.meaning, advice)
    verdict = worst(matchup.verdict for matchup in matchups)
    comparable = [matchup.pairs.verdict for matchup in matchups if matchup.fooled]
    advice_parts = [comparison.advice] if worst(comparable) != "pass" else []
    advice_parts += [NOTHING_FOOLED] if len(comparable) < len(matchups) else []
    return Check(
        comparison.name,
        verdict,
        "; ".join(map(str, matchups)),
        comparison.meaning,
        " ".join(advice_parts),
        {f"{one.budget}: {name}": value for one in matchups for name, value in one.pairs._asdict().items()},
    )


def find_matchups(
    comparison: Comparison, threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]
) -> Iterator[Matchup]:
    """Yields a matchup for every budget at which there are attacks of both kinds on common images."""
    for budget, attacks in by_budget(threats, verdicts).items():
        stronger = [verdicts[threat.name] for threat in attacks if comparison.stronger(threat)]
        weaker = [verdicts[threat.name] for threat in attacks if comparison.weaker(threat)]
        if stronger and weaker:
            first, second = strongest(stronger), strongest(weaker)
            pairs = Pairs.of(first.right, second.right)
            if pairs is not None:
                yield Matchup(budget, first, second, pairs, count_fooled(first, second, verdicts.get(CLEAN)))


def count_fooled(first: Verdicts, second: Verdicts, clean: Verdicts | None) -> int:
    """Counts the images that at least one attack fools, except images that are misclassified when clean."""
    common = first.right.keys() & second.right.keys()
    wrong = {image for image in common if not (first.right[image] and second.right[image])}
    return len(wrong if clean is None else {image for image in wrong if clean.right.get(image, True)})


def by_budget(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> dict[Budget, list[Threat]]:
    """Returns the attacks that have verdicts and a budget, by their budget."""
    groups: dict[Budget, list[Threat]] = {}
    for threat in threats:
        if threat.budget is not None and threat.name in verdicts:
            groups.setdefault(threat.budget, []).append(threat)
    return groups
