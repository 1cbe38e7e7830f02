"""Checks of the threat model: what a larger epsilon does, the range of pixels, and the saved images in their ball."""

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
from .check import Check, Verdict, unmeasured, worst
from .outcomes import Budget, Pairs, Threat, Verdicts, families, is_white_box, strongest

# An l-infinity ball of this radius around any image holds the evenly gray one, to which a model has but one answer.
LARGE = 0.5
FALLS = "accuracy falls with epsilon"
FALLS_MEANING = "A larger ball contains the smaller one, so an attack that works fools more images in it."


class Point(NamedTuple):
    """An attack and its epsilon; the clean images have epsilon 0."""

    epsilon: float
    verdicts: Verdicts

    @property
    def accuracy(self) -> float:
        return self.verdicts.accuracy.value


def falls_with_epsilon(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> Check:
    """Measures the accuracy under white-box attacks that differ in epsilon alone, after that of the clean images.

    Passes where no larger epsilon fools fewer images than a smaller one, and the largest fools significantly more than
    the smallest. The finding shows the family of attacks with the worst verdict, and of these the one with the most
    epsilons.
    """
    lines = [(fall_verdict(points), points) for points in growing_epsilons(threats, verdicts)]
    if not lines:
        missing = "white-box attacks that differ in epsilon alone"
        return unmeasured(FALLS, f"needs {missing}", FALLS_MEANING, f"Evaluate {missing}.")
    verdict = worst(each for each, _ in lines)
    shown = max((points for each, points in lines if each == verdict), key=len)
    return Check(
        FALLS,
        verdict,
        f"{shown[-1].verdicts.attack}: "
        + ", ".join(f"{point.accuracy:.1%} at {point.epsilon:.3g}" for point in shown)
        + f"; {len(shown[-1].verdicts.right):,} images",
        FALLS_MEANING,
        "" if verdict == "pass" else "Check epsilon, the step size and the gradients before you trust the accuracy.",
        {f"{point.epsilon:.6g}": point.accuracy for point in shown},
    )


def growing_epsilons(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts]) -> list[list[Point]]:
    """Returns the families of white-box attacks that differ in epsilon alone, the clean images first in each."""
    white_box = [threat for threat in threats if is_white_box(threat) and threat.name in verdicts]
    clean = [Point(0.0, verdicts[CLEAN])] if CLEAN in verdicts else []
    return [
        clean + [Point(epsilon, verdicts[threat.name]) for epsilon, threat in family]
        for family in families(white_box, "epsilon")
    ]


def fall_verdict(points: Sequence[Point]) -> Verdict:
    """Returns "pass" for no step up, and a step down from the first point to the last by more than noise."""
    steps = [Pairs.of(larger.verdicts.right, smaller.verdicts.right) for smaller, larger in pairwise(points)]
    ends = Pairs.of(points[-1].verdicts.right, points[0].verdicts.right)
    if ends is None or None in steps:
        return "warn"
    down: Verdict = "pass" if ends.verdict == "pass" and ends.significant else "warn"
    return worst([down, *(step.verdict for step in steps if step)])


CHANCE = "accuracy reaches chance at a large epsilon"
CHANCE_MEANING = "In a ball that contains the evenly gray image, an attack that works makes every image look alike."
ONE_CLASS = "all images are of one class, which one answer for all gets right"
SEVERAL_CLASSES = "Evaluate images of several classes."


def reaches_chance(threats: Iterable[Threat], verdicts: Mapping[str, Verdicts], labels: Sequence[int]) -> Check:
    """Measures the strongest white-box attack in an l-infinity ball that contains the evenly gray image.

    Passes where its accuracy is at most that of the best single answer for all images (chance).

    Args:
        threats: The attacks of the evaluation.
        verdicts: Which images are classified correctly under each of them.
        labels: The true classes of the images.
    """
    large = [
        verdicts[threat.name]
        for threat in threats
        if is_white_box(threat)
        and threat.name in verdicts
        and threat.budget is not None
        and threat.budget.norm == "linf"
        and threat.budget.epsilon >= LARGE
    ]
    if not large:
        reason = f"needs a white-box attack in l-infinity with epsilon {LARGE:g} or more"
        return unmeasured(CHANCE, reason, CHANCE_MEANING, f"Evaluate one with epsilon {LARGE:g}.")
    attack, chance = strongest(large), chance_of(labels)
    if chance == 1:
        return unmeasured(CHANCE, ONE_CLASS, CHANCE_MEANING, SEVERAL_CLASSES)
    accuracy = attack.accuracy
    verdict = at_most_chance(accuracy, chance)
    return Check(
        CHANCE,
        verdict,
        f"{attack.attack} leaves {accuracy.value:.1%} of {accuracy.images:,} images; chance is {chance:.1%}",
        CHANCE_MEANING,
        ""
        if verdict == "pass"
        else "The attack fails here; the model cannot hold. Take more steps, or look for better gradients.",
        {"accuracy": accuracy.value, "images": accuracy.images, "chance": chance},
    )


def chance_of(labels: Sequence[int]) -> float:
    """Returns the share of the most frequent class: no single answer for all images is right more often."""
    return max(Counter(labels).values()) / len(labels)


def at_most_chance(accuracy: Accuracy, chance: float) -> Verdict:
    """Returns "warn" for an accuracy above chance within its interval, and "fail" for one beyond it."""
    if accuracy.value <= chance:
        return "pass"
    return "warn" if accuracy.interval()[0] <= chance else "fail"


INPUT_RANGE = "the model takes images in [0, 1]"
INPUT_RANGE_MEANING = (
    "Attacks move pixels in [0, 1]. A model that expects another scale, or pixels that are normalized already, "
    "answers badly without any attack."
)


def input_range(model: nn.Module, block: Block, scoring: Scoring) -> Check:
    """Measures clean accuracy on images in [0, 1], and on the same images in other scales that models are made for.

    Passes where the accuracy in [0, 1] is above chance beyond its interval, and no other scale gives more right
    answers. A model may refuse the other scales.
    """
    chance = chance_of(block.labels.tolist())
    if chance == 1:
        return unmeasured(INPUT_RANGE, ONE_CLASS, INPUT_RANGE_MEANING, SEVERAL_CLASSES)
    right = right_answers(model, block.images, block, scoring)
    accuracy = Accuracy(sum(right.values()), len(right))
    words = [f"{accuracy.value:.1%} right in [0, 1]"]
    numbers = {"[0, 1]": accuracy.value, "chance": chance, "images": accuracy.images}
    verdicts = [above_chance(accuracy, chance)]
    for name, images in other_scales(block.images).items():
        try:
            other = right_answers(model, images, block, scoring)
        except Exception:  # models refuse scales by errors of any type
            words.append(f"refused {name}")
            continue
        pairs = Pairs.of(other, right)
        assert pairs is not None
        verdicts.append(pairs.verdict)
        words.append(f"{pairs.first_accuracy:.1%} {name}")
        numbers[name] = pairs.first_accuracy
    verdict = worst(verdicts)
    finding = f"{', '.join(words)}; {accuracy.images} clean images, chance {chance:.1%}"
    advice = "" if verdict == "pass" else "Put the normalization into the model, behind an input in [0, 1]."
    return Check(INPUT_RANGE, verdict, finding, INPUT_RANGE_MEANING, advice, numbers)


def other_scales(images: Tensor) -> dict[str, Tensor]:
    """Returns the images as bytes, in [-1, 1], and with mean 0 and standard deviation 1 in each channel."""
    mean, deviation = (moment((0, 2, 3), keepdim=True) for moment in (images.mean, images.std))
    return {
        "in 0 to 255": 255 * images,
        "in [-1, 1]": 2 * images - 1,
        "with mean 0 and deviation 1": (images - mean) / deviation.clamp(min=1e-6),
    }


def right_answers(model: nn.Module, images: Tensor, block: Block, scoring: Scoring) -> dict[int, bool]:
    """Returns image id to whether the vote is right."""
    votes = answers(model, images, block.ids, scoring).vote
    return dict(zip(block.ids.tolist(), (votes == block.labels).tolist(), strict=True))


def above_chance(accuracy: Accuracy, chance: float) -> Verdict:
    """Returns "fail" for an accuracy of at most chance, and "warn" for one above it within its interval."""
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
    BOX: "Pixels outside [0, 1] do not exist.",
    BALL: "An attack that moves images further than its epsilon looks stronger than it is.",
    BYTES: "Images are sent as files of 8 bits. An attack whose rounded images leave the ball may not survive that.",
}


@dataclass(frozen=True)
class Measured:
    """Some of an attack's saved images, measured in double precision.

    Attributes:
        attack: The attack's name.
        budget: The budget that the images had to keep, None if unknown.
        images: The number of images.
        outside: How many of their numbers are not in [0, 1], NaN included.
        size: The largest perturbation, in the norm of the budget. Numbers that are not finite count as unchanged.
        rounded: The largest perturbation after rounding to 8 bits.
        tolerance: By how much a perturbation may exceed epsilon.
    """

    attack: str
    budget: Budget | None
    images: int
    outside: int
    size: float
    rounded: float
    tolerance: float = TOLERANCE

    @classmethod
    def of(
        cls, attack: str, budget: Budget | None, clean: Tensor, perturbed: Tensor, tolerance: float = TOLERANCE
    ) -> "Measured":
        """Measures (N, C, H, W) float32 images beside the clean ones."""
        exact, original, norm = perturbed.double(), clean.double(), BALLS[budget.norm if budget else "linf"].size
        outside = ~((exact >= 0) & (exact <= 1))
        exact = torch.where(exact.isfinite(), exact, original)
        size, rounded = (float(norm(each - original).max()) for each in (exact, round_to_levels(exact)))
        return cls(attack, budget, len(exact), int(outside.sum()), size, rounded, tolerance)

    @property
    def epsilon(self) -> float:
        """The budget's epsilon, infinite without a budget."""
        return self.budget.epsilon if self.budget else math.inf

    @property
    def excess(self) -> float:
        """By how much the largest perturbation exceeds epsilon."""
        return self.size - self.epsilon

    @property
    def rounded_excess(self) -> float:
        """By how much it does after rounding to 8 bits."""
        return self.rounded - self.epsilon


def round_to_levels(images: Tensor) -> Tensor:
    """Returns the images rounded to the nearest of 256 levels."""
    return (images * LEVELS).round() / LEVELS


def check_images(measured: Sequence[Measured]) -> list[Check]:
    """Returns the checks of all saved adversarial images: the box of pixels, and the ball before and after rounding.

    Each finding names the attack that does worst.
    """
    if not measured:
        reason, advice = "no adversarial images are here", "Keep the adversarial images."
        return [unmeasured(name, reason, meaning, advice) for name, meaning in MEANINGS.items()]
    bounded = [each for each in measured if each.budget]
    if not bounded:
        reason, advice = "nothing says which ball the images had to keep", "Give --epsilon, and --norm."
        return [in_box(measured), *(unmeasured(name, reason, MEANINGS[name], advice) for name in (BALL, BYTES))]
    return [in_box(measured), in_ball(bounded), in_ball_as_bytes(bounded)]


def in_box(measured: Sequence[Measured]) -> Check:
    """Passes where every number lies in [0, 1]."""
    images, outside = sum(each.images for each in measured), sum(each.outside for each in measured)
    finding = f"all numbers of {images:,} adversarial images are in [0, 1]"
    if outside:
        most = max(measured, key=lambda each: each.outside)
        finding = f"{outside:,} numbers lie outside or are NaN, most of them under {most.attack}"
    advice = "The attack leaves the box of pixels: its accuracies do not count." if outside else ""
    verdict: Verdict = "fail" if outside else "pass"
    return Check(BOX, verdict, finding, MEANINGS[BOX], advice, {"images": images, "outside": outside})


def in_ball(measured: Sequence[Measured]) -> Check:
    """Passes where no perturbation is larger than epsilon, within the rounding of float32."""
    most = max(measured, key=lambda each: each.excess - each.tolerance)
    over = most.excess > most.tolerance
    return Check(
        BALL,
        "fail" if over else "pass",
        f"the largest is {most.size:.6f}, at epsilon {most.epsilon:.6f} (excess {most.excess:.1e}), "
        f"under {most.attack}",
        MEANINGS[BALL],
        "The attack leaves its ball: its accuracies do not count." if over else "",
        {"size": most.size, "epsilon": most.epsilon, "excess": most.excess},
    )


def in_ball_as_bytes(measured: Sequence[Measured]) -> Check:
    """Passes where no perturbation is larger than epsilon after rounding to 8 bits.

    Rounding moves a pixel by up to half a level. Images that leave the ball only because of it are a warning.
    """
    most = max(measured, key=lambda each: each.rounded_excess)
    over = most.rounded_excess > most.tolerance
    left_before = any(each.excess > each.tolerance for each in measured)
    return Check(
        BYTES,
        "fail" if left_before else "warn" if over else "pass",
        f"the largest is {most.rounded:.6f}, at epsilon {most.epsilon:.6f} (excess {most.rounded_excess:.1e}), "
        f"under {most.attack}{', rounded from images that leave the ball' if left_before else ''}",
        MEANINGS[BYTES],
        "Score the rounded images too. In l-infinity, an epsilon of whole levels around 8-bit images loses nothing."
        if over
        else "",
        {"size": most.rounded, "epsilon": most.epsilon, "excess": most.rounded_excess},
    )
