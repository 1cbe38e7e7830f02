"""What saved adversarial images are, measured again in double precision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...attacks.balls import BALLS
from .check import Check
from .threat import Budget

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
