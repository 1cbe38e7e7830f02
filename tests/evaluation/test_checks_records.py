"""Checks that need only the records."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation_folder import record, records, share, threat
from neuroae.evaluation import Record
from neuroae.evaluation.checks import Check, Threat, checks_from_records
from neuroae.evaluation.checks.draws import one_draw, several_draws
from neuroae.evaluation.checks.gradients import invalid_gradients, zero_gradients
from neuroae.evaluation.checks.outcomes import TRANSFER, records_of

CLEAN_THREAT = Threat("clean", "clean")


@pytest.mark.parametrize(
    ("zero", "verdict"), [(0, "pass"), (1, "pass"), (2, "warn"), (10, "warn"), (11, "fail"), (90, "fail")]
)
def test_many_zero_gradients_are_told_with_their_rate(zero: int, verdict: str) -> None:
    counts = [zero // 10 + (image < zero % 10) for image in range(10)]
    attack_records = [record("pgd", image, True, zero=count) for image, count in enumerate(counts)]
    check = zero_gradients(
        {"clean": records("clean", [True] * 10), "pgd": attack_records, "other": records("other", [True])}
    )
    assert check.verdict == verdict
    assert check.numbers == {"rate": zero / 100, "passes": 100, "blind": 0}
    assert "under pgd" in check.finding


def test_an_image_without_any_gradient_is_a_warning_among_many_others() -> None:
    attack_records = [record("pgd", image, True, zero=10 * (image == 7)) for image in range(1000)]
    check = zero_gradients({"pgd": attack_records})
    assert check.verdict == "warn"
    assert check.numbers["blind"] == 1


@pytest.mark.parametrize(("invalid", "verdict"), [(0, "pass"), (1, "warn"), (10, "warn"), (11, "fail")])
def test_gradients_that_are_not_finite_are_told(invalid: int, verdict: str) -> None:
    attack_records = [record("pgd", image, True, invalid=image < invalid) for image in range(100)]
    assert invalid_gradients({"pgd": attack_records}).verdict == verdict


def test_without_gradients_their_rates_are_not_measured() -> None:
    check = zero_gradients({"clean": records("clean", [True])})
    assert (check.verdict, check.measured) == ("warn", False)


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=5))
def test_flip_rate_is_that_of_all_pairs_of_draws(draws: list[list[int]]) -> None:
    check = several_draws([record("clean", image, True, draws=tuple(answers)) for image, answers in enumerate(draws)])
    pairs = [first != second for answers in draws for first, second in combinations(answers, 2)]
    assert check.numbers["flip rate"] == pytest.approx(sum(pairs) / len(pairs))
    assert check.verdict == "pass"


@pytest.mark.parametrize(
    ("check", "verdict", "measured"),
    [
        pytest.param(several_draws(records("clean", [True]), fixed_masks=True), "fail", True, id="fixed-masks"),
        pytest.param(several_draws(records("clean", [True], draws=(0,))), "warn", False, id="one-draw"),
        pytest.param(several_draws([]), "warn", False, id="no-images"),
        pytest.param(one_draw(random=True), "fail", True, id="one-draw-of-a-random-model"),
        pytest.param(one_draw(random=False), "pass", True, id="one-draw-of-another"),
    ],
)
def test_single_draws_of_a_random_model_are_refused(check: Check, verdict: str, measured: bool) -> None:
    assert (check.verdict, check.measured) == (verdict, measured)


def everything() -> tuple[list[Record], list[Threat]]:
    threats = [
        CLEAN_THREAT,
        threat("pgd"),
        threat("fgsm", steps=1, step_size=0.1),
        threat("wide", epsilon=0.5),
        threat("transfer", "transfer"),
        threat("square", "gradient-free"),
        threat("not yet"),
    ]
    right = {"clean": 40, "pgd": 10, "fgsm": 20, "wide": 0, "transfer": 5, "square": 15}
    return [record for name, count in right.items() for record in records(name, share(count, 40))], threats


def test_all_checks_are_made_of_one_evaluation() -> None:
    checks = checks_from_records(*everything())
    assert all(check.measured for check in checks)
    by_check = {check.name: check.verdict for check in checks}
    assert by_check.pop(TRANSFER.name) == "warn"
    assert set(by_check.values()) == {"pass"}
    assert len(by_check) == 7


def test_fixed_masks_fail_and_no_records_are_refused() -> None:
    verdicts = [check.verdict for check in checks_from_records(*everything(), fixed_masks=True)]
    assert verdicts.count("fail") == 1
    with pytest.raises(ValueError, match="records is empty"):
        checks_from_records([], [])


def test_records_are_grouped_in_their_order() -> None:
    by_attack = records_of([record("b", 2, True), record("a", 1, True), record("b", 1, False)])
    assert {name: [each.image for each in attack_records] for name, attack_records in by_attack.items()} == {
        "b": [2, 1],
        "a": [1],
    }
