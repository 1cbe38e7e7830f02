"""What saved adversarial images are, measured again in double precision."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...attacks.balls import BALLS
from ..records import CLEAN
from ..scoring import Block, Scoring, answers
from ..statistics import Accuracy
from .check import Budget, Check, Threat, Verdict, families, worst
from .outcomes import Pairs, Verdicts, strongest

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


INPUT_RANGE = "the model takes images in [0, 1]"
INPUT_RANGE_MEANING = (
    "Attacks move pixels in [0, 1]. A model made for another scale, or for pixels that were normalized before, "
    "answers them badly without any attack."
)


def input_range(model: nn.Module, block: Block, scoring: Scoring) -> Check:
    """Clean accuracy in [0, 1], and that of the same images on other scales that models are made for.

    [0, 1] ought to be above chance and no worse than another scale; a model may refuse the others.
    """
    chance = chance_of(block.labels.tolist())
    if chance == 1:
        return Check(INPUT_RANGE, "warn", ONE_CLASS, INPUT_RANGE_MEANING, "Evaluate images of several classes.")
    right = answered(model, block.images, block, scoring)
    own = Accuracy(sum(right.values()), len(right))
    told, numbers = [f"{own.value:.1%} right in [0, 1]"], {"[0, 1]": own.value, "chance": chance, "images": own.images}
    verdicts = [above(own, chance)]
    for name, images in other_scales(block.images).items():
        try:
            other = answered(model, images, block, scoring)
        except Exception:  # models have ways of their own to refuse
            told.append(f"refused {name}")
            continue
        pairs = Pairs.of(other, right)
        assert pairs is not None
        verdicts.append(pairs.verdict)
        told.append(f"{pairs.first_accuracy:.1%} {name}")
        numbers[name] = pairs.first_accuracy
    verdict = worst(verdicts)
    found = f"{', '.join(told)}; {own.images} clean images, chance {chance:.1%}"
    advice = "" if verdict == "pass" else "Put the normalization into the model, behind an input in [0, 1]."
    return Check(INPUT_RANGE, verdict, found, INPUT_RANGE_MEANING, advice, numbers)


def other_scales(images: Tensor) -> dict[str, Tensor]:
    """Bytes, [-1, 1], and each channel with mean 0 and standard deviation 1."""
    mean, deviation = (moment((0, 2, 3), keepdim=True) for moment in (images.mean, images.std))
    return {
        "in 0 to 255": 255 * images,
        "in [-1, 1]": 2 * images - 1,
        "with mean 0 and deviation 1": (images - mean) / deviation.clamp(min=1e-6),
    }


def answered(model: nn.Module, images: Tensor, block: Block, scoring: Scoring) -> dict[int, bool]:
    """Image id to whether the vote is right."""
    votes = answers(model, images, block.ids, scoring).vote
    return dict(zip(block.ids.tolist(), (votes == block.labels).tolist(), strict=True))


def above(accuracy: Accuracy, chance: float) -> Verdict:
    if accuracy.value <= chance:
        return "fail"
    return "pass" if accuracy.interval()[0] > chance else "warn"


# The distance between neighbours among the float32 numbers just below 1, where images are rounded most.
TOLERANCE = 2**-24
LEVELS = 255
BOX = "images in [0, 1]"
BALL = "perturbations within epsilon"
BYTES = "perturbations within epsilon after rounding to 8 bits"
MEANINGS = {
    BOX: "There are no pixels but those in [0, 1].",
    BALL: "An attack that takes more room than it says looks stronger than it is.",
    BYTES: "An image that leaves the ball as soon as it is saved as a file is not an attack that can be sent.",
}


@dataclass(frozen=True)
class Measured:
    """Some of an attack's images.

    Attributes:
        attack: its name.
        budget: that they were to keep, None where that is not known.
        images: how many.
        outside: of their numbers, those that are not in [0, 1], NaN included.
        size: the largest perturbation, in the norm of the budget; numbers that are not finite count as untouched.
        rounded: the same after rounding to 8 bits.
        tolerance: by how much a perturbation may be larger than epsilon.
    """

    attack: str
    budget: Budget | None
    images: int
    outside: int
    size: float
    rounded: float
    tolerance: float = TOLERANCE

    @property
    def epsilon(self) -> float:
        """Infinite without a budget."""
        return self.budget.epsilon if self.budget else math.inf

    @classmethod
    def of(
        cls, attack: str, budget: Budget | None, clean: Tensor, perturbed: Tensor, tolerance: float = TOLERANCE
    ) -> "Measured":
        """Both (N, C, H, W) float32."""
        exact, original, norm = perturbed.double(), clean.double(), BALLS[budget.norm if budget else "linf"].size
        outside = ~((exact >= 0) & (exact <= 1))
        exact = torch.where(exact.isfinite(), exact, original)
        size, as_bytes = (float(norm(each - original).max()) for each in (exact, rounded(exact)))
        return cls(attack, budget, len(exact), int(outside.sum()), size, as_bytes, tolerance)


def rounded(images: Tensor) -> Tensor:
    """To the nearest of 256 levels."""
    return (images * LEVELS).round() / LEVELS


def check_images(measured: Sequence[Measured]) -> list[Check]:
    """Of all attacks together; each line names the attack that does worst."""
    if not measured:
        return [
            unmeasured(name, "no adversarial images are here", "Keep the adversarial images.") for name in MEANINGS
        ]
    bounded = [each for each in measured if each.budget]
    if not bounded:
        told, advice = "nothing says which ball the images were to keep", "Give --epsilon, and --norm."
        return [in_box(measured), *(unmeasured(name, told, advice) for name in (BALL, BYTES))]
    return [in_box(measured), in_ball(bounded), in_ball_as_bytes(bounded)]


def unmeasured(name: str, reason: str, advice: str) -> Check:
    return Check(name, "warn", f"not measured: {reason}", MEANINGS[name], advice)


def in_box(measured: Sequence[Measured]) -> Check:
    images, outside = sum(each.images for each in measured), sum(each.outside for each in measured)
    found = f"all numbers of {images:,} adversarial images"
    if outside:
        most = max(measured, key=lambda each: each.outside)
        found = f"{outside:,} numbers lie outside or are NaN, most of them under {most.attack}"
    advice = "The attack leaves the box of pixels: its accuracies do not count." if outside else ""
    return Check(
        BOX,
        "fail" if outside else "pass",
        found,
        MEANINGS[BOX],
        advice,
        {"images": images, "outside": outside},
    )


def in_ball(measured: Sequence[Measured]) -> Check:
    most = max(measured, key=lambda each: excess(each) - each.tolerance)
    over = excess(most) > most.tolerance
    return Check(
        BALL,
        "fail" if over else "pass",
        f"at most {most.size:.6f} of {most.epsilon:.6f}, an excess of {excess(most):.1e}, under {most.attack}",
        MEANINGS[BALL],
        "The attack leaves its ball: its accuracies do not count." if over else "",
        {"size": most.size, "epsilon": most.epsilon, "excess": excess(most)},
    )


def in_ball_as_bytes(measured: Sequence[Measured]) -> Check:
    """Rounding moves an image by up to half a level: leaving the ball by that alone is a warning."""
    most = max(measured, key=rounded_excess)
    over = rounded_excess(most) > most.tolerance
    left_before = any(excess(each) > each.tolerance for each in measured)
    return Check(
        BYTES,
        "fail" if left_before else "warn" if over else "pass",
        f"at most {most.rounded:.6f} of {most.epsilon:.6f}, an excess of {rounded_excess(most):.1e}, "
        f"under {most.attack}{', rounded from images that leave it' if left_before else ''}",
        MEANINGS[BYTES],
        "Score the rounded images as well. In l-infinity, whole levels of epsilon around 8-bit images lose nothing."
        if over
        else "",
        {"size": most.rounded, "epsilon": most.epsilon, "excess": rounded_excess(most)},
    )


def excess(measured: Measured) -> float:
    return measured.size - measured.epsilon


def rounded_excess(measured: Measured) -> float:
    return measured.rounded - measured.epsilon
