"""Whether more room lets an attack do more, and enough room everything."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..records import CLEAN
from ..statistics import Accuracy
from .check import Check, Verdict, worst
from .threat import Threat, families
from .verdicts import Pairs, Verdicts, strongest

# A ball of this radius around any image holds the evenly gray one, on which a model has but one answer.
LARGE = 0.5
FALLS = "accuracy falls with epsilon"
CHANCE = "accuracy reaches chance at a large epsilon"
ONE_CLASS = "not measured: all images are of one class, which one answer for all gets right"


class Point(NamedTuple):
    epsilon: float
    verdicts: Verdicts


def falls_with_epsilon(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> Check:
    """White-box attacks that differ in epsilon alone, two at least, each family with the clean images before it.

    The family that does worst is told; of equals, the one with the most epsilons.
    """
    meaning = "A larger ball holds the smaller one, so an attack that works does more with it."
    lines = [(fall(family), family) for family in growing(threats, verdicts)]
    if not lines:
        missing = "white-box attacks that differ in epsilon alone"
        return Check(FALLS, "warn", f"not measured: needs {missing}", meaning, f"Evaluate {missing}.")
    verdict = worst(each for each, _ in lines)
    shown = max((family for each, family in lines if each == verdict), key=len)
    return Check(
        FALLS,
        verdict,
        f"{shown[-1].verdicts.attack}: "
        + ", ".join(f"{accuracy(point):.1%} at {point.epsilon:.3g}" for point in shown)
        + f"; {len(shown[-1].verdicts.right):,} images",
        meaning,
        "" if verdict == "pass" else "Check epsilon, the step size and the gradients before the accuracy is believed.",
        {f"{point.epsilon:.6g}": accuracy(point) for point in shown},
    )


def growing(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> list[list[Point]]:
    """Points of growing epsilon, two at least, after the clean images at 0."""
    own = [threat for threat in threats if threat.access == "white-box" and threat.name in verdicts]
    clean = [Point(0.0, verdicts[CLEAN])] if CLEAN in verdicts else []
    return [
        clean + [Point(threat.settings["epsilon"], verdicts[threat.name]) for threat in family]
        for family in families(own, "epsilon")
    ]


def fall(points: Sequence[Point]) -> Verdict:
    """No step up, and down from the first to the last by more than noise."""
    steps = [Pairs.of(larger.verdicts.right, smaller.verdicts.right) for smaller, larger in pairwise(points)]
    whole = Pairs.of(points[-1].verdicts.right, points[0].verdicts.right)
    if whole is None or None in steps:
        return "warn"
    down: Verdict = "pass" if whole.verdict == "pass" and whole.significant else "warn"
    return worst([down, *(step.verdict for step in steps if step)])


def accuracy(point: Point) -> float:
    return point.verdicts.accuracy.value


def reaches_chance(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts], labels: Sequence[int]) -> Check:
    """The strongest white-box attack in an l-infinity ball that holds the gray image.

    Args:
        threats, verdicts: of the evaluation.
        labels: true classes of its images. Chance is the share of the most frequent: no model with one answer for
            all images does better.
    """
    meaning = "In a ball that holds the evenly gray image, an attack that works makes every image look alike."
    large = [
        verdicts[threat.name]
        for threat in threats
        if threat.access == "white-box"
        and threat.name in verdicts
        and threat.budget is not None
        and threat.budget.norm == "linf"
        and threat.budget.epsilon >= LARGE
    ]
    if not large:
        found = f"not measured: needs a white-box attack in l-infinity with epsilon {LARGE:g} or more"
        return Check(CHANCE, "warn", found, meaning, f"Evaluate one with epsilon {LARGE:g}.")
    attack, chance = strongest(large), chance_of(labels)
    if chance == 1:
        return Check(CHANCE, "warn", ONE_CLASS, meaning, "Evaluate images of several classes.")
    left = attack.accuracy
    verdict = no_more_than(left, chance)
    return Check(
        CHANCE,
        verdict,
        f"{attack.attack} leaves {left.value:.1%} of {left.images:,} images; chance is {chance:.1%}",
        meaning,
        ""
        if verdict == "pass"
        else "The attack is what fails here, not the model that holds: more steps, better gradients.",
        {"accuracy": left.value, "images": left.images, "chance": chance},
    )


def chance_of(labels: Sequence[int]) -> float:
    return max(Counter(labels).values()) / len(labels)


def no_more_than(accuracy: Accuracy, chance: float) -> Verdict:
    """ "warn" where the accuracy is above chance, within its interval; "fail" where it is beyond."""
    if accuracy.value <= chance:
        return "pass"
    return "warn" if accuracy.interval()[0] <= chance else "fail"
