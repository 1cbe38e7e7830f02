"""Checks of saved images."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroae.evaluation.checks import Budget, Measured, check_images
from neuroae.evaluation.checks.threat_model import BALL, BOX, BYTES

SMALL = Budget("linf", 8 / 255)


def byte_images(count: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 4, 4), generator=generator).float() / 255


def verdicts(clean: Tensor, perturbed: Tensor, budget: Budget = SMALL) -> dict[str, str]:
    return {check.name: check.verdict for check in check_images([Measured.of("pgd", budget, clean, perturbed)])}


@given(st.integers(0, 2**32), st.integers(1, 255))
def test_whole_levels_around_bytes_survive_rounding(seed: int, levels: int) -> None:
    clean, budget = byte_images(seed=seed), Budget("linf", levels / 255)
    noise = 2 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed)) - 1
    perturbed = (clean + budget.epsilon * noise).clamp(0, 1)
    assert verdicts(clean, perturbed, budget) == {BOX: "pass", BALL: "pass", BYTES: "pass"}


@pytest.mark.parametrize(
    ("epsilon", "moved", "box", "ball", "as_bytes"),
    [
        pytest.param(8 / 255, 8 / 255, "pass", "pass", "pass", id="on-the-edge"),
        pytest.param(7.6 / 255, 7.6 / 255, "pass", "pass", "warn", id="rounded-out-of-the-ball"),
        pytest.param(8 / 255, 8.01 / 255, "pass", "fail", "fail", id="out-of-the-ball"),
        pytest.param(1.0, 0.7, "fail", "pass", "pass", id="out-of-the-box"),
        pytest.param(1.0, math.nan, "fail", "pass", "pass", id="not-a-number"),
        pytest.param(1.0, math.inf, "fail", "pass", "pass", id="infinite"),
    ],
)
def test_one_pixel_is_enough(epsilon: float, moved: float, box: str, ball: str, as_bytes: str) -> None:
    clean = torch.full((3, 1, 2, 2), 102 / 255)
    perturbed = clean.clone()
    perturbed[1, 0, 1, 1] += moved
    checks = check_images([Measured.of("pgd", Budget("linf", epsilon), clean, perturbed)])
    assert [check.verdict for check in checks] == [box, ball, as_bytes]
    assert checks[0].numbers["outside"] == (box == "fail")
    assert all(math.isfinite(number) for check in checks for number in check.numbers.values())


def test_l2_perturbations_are_measured_in_their_norm() -> None:
    clean = torch.full((1, 1, 3, 3), 0.2)
    for length, verdict in ((0.3, "pass"), (0.301, "fail")):
        assert verdicts(clean, clean + length / 3, Budget("l2", 0.3))[BALL] == verdict


def test_the_attack_that_does_worst_is_told_by_its_excess() -> None:
    clean = byte_images()
    within = Measured.of("wide", Budget("linf", 0.5), clean, (clean + 0.5).clamp(max=1))
    outside = [
        Measured.of("narrow", SMALL, clean[part], (clean[part] - 9 / 255).clamp(min=0))
        for part in (slice(3), slice(3, 5))
    ]
    _, ball, _ = check_images([within, *outside])
    assert ball.verdict == "fail"
    assert "under narrow" in ball.finding
    assert ball.numbers["excess"] == pytest.approx(1 / 255, abs=1e-6)
    assert check_images([within, *outside])[0].numbers["images"] == 10


def test_images_without_a_budget_are_held_to_the_box() -> None:
    box, *others = check_images([Measured.of("theirs", None, torch.rand(2, 1, 4, 4), torch.full((2, 1, 4, 4), 1.5))])
    assert (box.verdict, box.numbers["outside"]) == ("fail", 32)
    assert [(check.measured, check.advice) for check in others] == [(False, "Give --epsilon, and --norm.")] * 2


def test_without_images_nothing_is_measured() -> None:
    assert [(check.verdict, check.measured) for check in check_images([])] == [("warn", False)] * 3


def test_images_from_elsewhere_are_held_to_what_they_were_accepted_by() -> None:
    clean, perturbed = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.5)
    perturbed[0, 0, 0, 0] += 0.1
    budget = Budget("l2", 0.1 - 5e-7)
    for tolerance, verdict in {2**-24: "fail", 1e-6: "pass"}.items():
        _, ball, _ = check_images([Measured.of("theirs", budget, clean, perturbed, tolerance)])
        assert ball.verdict == verdict
