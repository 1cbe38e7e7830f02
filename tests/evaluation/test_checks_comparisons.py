"""Checks of attacks against each other, and of epsilon."""

from collections.abc import Sequence
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation_folder import records, share, threat
from models import Linear
from neuroae.attacks import PGDSettings, SquareSettings
from neuroae.evaluation import Attack
from neuroae.evaluation.checks import Threat
from neuroae.evaluation.checks.outcomes import (
    COMPARISONS,
    GRADIENT_FREE,
    ITERATIVE,
    NOTHING_FOOLED,
    TRANSFER,
    Comparison,
    Pairs,
    Verdicts,
    compare,
    families,
)
from neuroae.evaluation.checks.threat_model import falls_with_epsilon, reaches_chance


def verdicts(**right: Sequence[bool]) -> dict[str, Verdicts]:
    return {name: Verdicts(name, records(name, answers)) for name, answers in right.items()}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_pairs_are_judged_by_mcnemars_exact_test(answers: list[tuple[bool, bool]]) -> None:
    first, second = ({image: pair[side] for image, pair in enumerate(answers)} for side in (0, 1))
    pairs = Pairs.of(first, second | {99: True})
    assert pairs is not None
    assert pairs.images == len(answers)
    assert pairs.first_accuracy == sum(right for right, _ in answers) / len(answers)
    assert (pairs.first, pairs.second) == (answers.count((False, True)), answers.count((True, False)))
    apart, fewer = pairs.first + pairs.second, min(pairs.first, pairs.second)
    tail = sum(comb(apart, count) for count in range(fewer + 1)) / 2**apart
    assert pairs.p == pytest.approx(min(1, 2 * tail))
    weaker = pairs.first < pairs.second
    assert pairs.verdict == ("pass" if not weaker else "fail" if pairs.p < 0.05 else "warn")


def test_attacks_on_other_images_cannot_be_paired() -> None:
    assert Pairs.of({1: True}, {2: True}) is None


@pytest.mark.parametrize(
    ("stronger", "other", "verdict"),
    [(10, 20, "pass"), (20, 20, "pass"), (20, 16, "warn"), (20, 10, "fail")],
    ids=["stronger", "equal", "weaker-within-noise", "weaker"],
)
@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_a_stronger_attack_that_does_worse_is_told(
    stronger: int, other: int, verdict: str, comparison: Comparison
) -> None:
    weak = {
        ITERATIVE: threat("weak", steps=1, step_size=0.1),
        TRANSFER: threat("weak", "transfer"),
        GRADIENT_FREE: threat("weak", "gradient-free"),
    }[comparison]
    check = compare(comparison, [threat("strong"), weak], verdicts(strong=share(stronger, 40), weak=share(other, 40)))
    assert check.verdict == verdict
    assert bool(check.advice) == (verdict != "pass")
    assert f"strong leaves {stronger / 40:.1%} and weak {other / 40:.1%} of 40 images" in check.finding


@pytest.mark.parametrize(
    ("clean", "verdict"), [([True] * 8, "pass"), ([True] * 6 + [False] * 2, "warn")], ids=["all-right", "two-wrong"]
)
def test_attacks_that_fool_nothing_are_not_told_apart(clean: list[bool], verdict: str) -> None:
    """An image that is misclassified when clean is not counted as fooled."""
    attacks = [threat("strong"), threat("weak", "transfer")]
    left = [True] * 6 + [False] * 2
    check = compare(TRANSFER, attacks, verdicts(clean=clean, strong=left, weak=left))
    assert check.verdict == verdict
    assert ("neither fools one" in check.finding) == (verdict == "warn")
    assert check.advice == (NOTHING_FOOLED if verdict == "warn" else "")


def test_advice_is_that_of_every_budget() -> None:
    """At one budget nothing is fooled, and at the other the transfer fools more."""
    budgets = [
        (0.1, "white-box", "none"),
        (0.1, "transfer", "no"),
        (0.3, "white-box", "some"),
        (0.3, "transfer", "more"),
    ]
    attacks = [threat(name, access, epsilon) for epsilon, access, name in budgets]
    check = compare(
        TRANSFER, attacks, verdicts(none=[True] * 40, no=[True] * 40, some=share(20, 40), more=share(5, 40))
    )
    assert check.verdict == "fail"
    assert check.advice == f"{TRANSFER.advice} {NOTHING_FOOLED}"


def test_a_search_is_set_beside_attacks_in_the_norm_that_it_knows() -> None:
    model = Linear(1, 8, 10).eval()
    threats = [
        Threat.of(name, Attack(name, model, settings).identity())
        for name, settings in {"strong": PGDSettings(0.1), "weak": SquareSettings(0.1)}.items()
    ]
    check = compare(GRADIENT_FREE, threats, verdicts(strong=share(10, 40), weak=share(20, 40)))
    assert check.verdict == "pass"


def test_one_short_step_is_no_single_step_attack() -> None:
    answers = verdicts(strong=share(30, 40), weak=share(40, 40))
    check = compare(ITERATIVE, [threat("strong"), threat("weak", steps=1, step_size=0.01)], answers)
    assert check.finding.startswith("not measured")


def test_attacks_are_compared_at_one_budget_only() -> None:
    answers = verdicts(strong=share(30, 40), weak=share(0, 40))
    for weak in (threat("weak", "transfer", epsilon=0.2), threat("weak", "transfer", norm="l2")):
        check = compare(TRANSFER, [threat("strong"), weak], answers)
        assert (check.verdict, check.measured) == ("warn", False)
        assert "needs a white-box attack and a transfer attack at the same budget" in check.finding


def test_every_budget_is_compared_and_the_worst_verdict_counts() -> None:
    threats = [
        threat("small", epsilon=0.1),
        threat("small transfer", "transfer", epsilon=0.1),
        threat("large", epsilon=0.3),
        threat("large transfer", "transfer", epsilon=0.3),
    ]
    right = {"small": 20, "small transfer": 30, "large": 20, "large transfer": 5}
    answers = {name: Verdicts(name, records(name, share(count, 40))) for name, count in right.items()}
    check = compare(TRANSFER, threats, answers)
    assert check.verdict == "fail"
    assert "linf 0.1: small leaves" in check.finding
    assert "linf 0.3: large leaves" in check.finding


def test_the_strongest_attack_is_chosen_on_selection_draws() -> None:
    threats = [threat("selected"), threat("lucky"), threat("weak", "transfer")]
    answers = verdicts(weak=share(20, 40))
    answers["selected"] = Verdicts("selected", records("selected", share(30, 40), selection=0.1))
    answers["lucky"] = Verdicts("lucky", records("lucky", share(0, 40), selection=-0.1))
    check = compare(TRANSFER, threats, answers)
    assert "selected leaves 75.0%" in check.finding
    assert check.verdict == "fail"


def sweep(*right: int, images: int = 40) -> tuple[list[Threat], dict[str, Verdicts]]:
    """Clean images, and attacks at epsilon 0.1, 0.2, ... that leave so many right; in an order that is not theirs."""
    names = ["clean", *(f"at {number}" for number in range(1, len(right)))]
    answers = {
        name: Verdicts(name, records(name, share(count, images))) for name, count in zip(names, right, strict=True)
    }
    threats = [threat(name, epsilon=0.1 * number, step_size=0.01 * number) for number, name in enumerate(names)][1:]
    return [Threat("clean", "clean"), *reversed(threats)], answers


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        pytest.param((40, 20, 5), "pass", id="falls"),
        pytest.param((40, 20, 20), "pass", id="falls-and-stays"),
        pytest.param((40, 20, 22), "warn", id="rises-within-noise"),
        pytest.param((40, 5, 20), "fail", id="rises"),
        pytest.param((40, 40, 40), "warn", id="does-not-fall"),
        pytest.param((40, 39, 38), "warn", id="falls-within-noise"),
    ],
)
def test_accuracy_falls_with_epsilon(right: tuple[int, ...], verdict: str) -> None:
    check = falls_with_epsilon(*sweep(*right))
    assert check.verdict == verdict
    assert list(check.numbers.values()) == [count / 40 for count in right]
    assert list(check.numbers) == ["0", "0.1", "0.2"]


@pytest.mark.parametrize("differing", [{"steps": 9}, {"norm": "l2"}, {"access": "transfer"}], ids=str)
def test_attacks_that_differ_in_more_than_epsilon_are_no_sweep(differing: dict[str, object]) -> None:
    threats, answers = sweep(40, 20, 5)
    threats[1] = threat("at 2", **{"epsilon": 0.2, **differing})  # type: ignore[arg-type]
    check = falls_with_epsilon(threats, answers)
    assert (check.verdict, check.measured) == ("warn", False)


@pytest.mark.parametrize(
    ("epsilon", "right", "verdict"),
    [(0.5, 0, "pass"), (0.5, 20, "pass"), (1.0, 23, "warn"), (0.5, 35, "fail"), (0.4, 0, "warn")],
)
def test_a_large_epsilon_leaves_chance(epsilon: float, right: int, verdict: str) -> None:
    """Each class has half of the images."""
    attacked = [
        threat("pgd", epsilon=epsilon),
        threat("l2", epsilon=0.6, norm="l2"),
        threat("free", "gradient-free", 0.6),
    ]
    answers = verdicts(pgd=share(right, 40), l2=share(0, 40), free=share(0, 40))
    check = reaches_chance(attacked, answers, [image % 2 for image in range(40)])
    assert check.verdict == verdict
    assert check.measured == (epsilon >= 0.5)
    if check.measured:
        assert check.numbers == {"accuracy": right / 40, "images": 40, "chance": 0.5}


def test_attacks_of_other_relative_steps_are_no_larger_balls_of_one_another() -> None:
    """Two attacks in the same ball are not a family either. A family with step sizes in proportion to epsilon is."""
    threats = [
        threat(f"{name} {epsilon}", epsilon=epsilon, step_size=share * epsilon)
        for name, share in {"long": 0.25, "short": 0.02}.items()
        for epsilon in (0.05, 0.1)
    ]
    right = {"long 0.05": 10, "long 0.1": 2, "short 0.05": 30, "short 0.1": 20}
    answers = {name: Verdicts(name, records(name, share(count, 40))) for name, count in right.items()}
    assert [[point.threat.name for point in family] for family in families(threats, "epsilon")] == [
        ["long 0.05", "long 0.1"],
        ["short 0.05", "short 0.1"],
    ]
    assert falls_with_epsilon(threats, answers).verdict == "pass"


def test_a_step_size_that_stays_as_it_is_makes_a_family_too() -> None:
    threats = [threat(f"at {epsilon}", epsilon=epsilon, step_size=0.01) for epsilon in (0.1, 0.05)]
    assert [[point.threat.name for point in family] for family in families(threats, "epsilon")] == [
        ["at 0.05", "at 0.1"]
    ]


def test_images_of_one_class_tell_nothing_of_chance() -> None:
    check = reaches_chance([threat("large", epsilon=0.5)], verdicts(large=share(0, 40)), [3] * 40)
    assert check.verdict == "warn"
    assert "one class" in check.finding
