"""Accuracies with their uncertainty, against values computed by hand or in another way."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, norm

from neuroae.evaluation import Accuracy, Record
from neuroae.evaluation.statistics import (
    Estimate,
    clopper_pearson,
    draw_accuracy,
    mean_over_images,
    papers_minimum,
    persistent_accuracy,
    vote_accuracy,
    worst_case,
)


def record(image: int, label: int, draws: tuple[int, ...], vote: int = 0, selection: float = 0.0) -> Record:
    return Record("some", image, label, vote, draws, selection, 0.0, 0.0, 0, 0, 0, 0)


@given(st.integers(1, 2000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_intervals_are_clopper_pearsons(counts: tuple[int, int]) -> None:
    correct, images = counts
    low, high = Accuracy(correct, images).interval()
    assert low == pytest.approx(beta.ppf(0.025, correct, images - correct + 1) if correct else 0, abs=1e-6)
    assert high == pytest.approx(beta.ppf(0.975, correct + 1, images - correct) if correct < images else 1, abs=1e-6)
    assert low <= Accuracy(correct, images).value <= high


def test_the_vote_counts_and_not_the_draws() -> None:
    records = [record(0, 1, (0, 0, 0), vote=1), record(1, 2, (2, 2, 2), vote=0), record(2, 0, (0, 1, 2), vote=0)]
    assert vote_accuracy(records) == Accuracy(2, 3)


# Right draws: 2 of 4, 4 of 4, 0 of 4 and 3 of 4.
FOUR = [
    record(0, 1, (1, 2, 1, 3)),
    record(1, 0, (0, 0, 0, 0)),
    record(2, 5, (1, 2, 3, 4)),
    record(3, 7, (7, 7, 0, 7)),
]


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        (1, (2 / 4 + 1 + 0 + 3 / 4) / 4),
        (2, (1 / 6 + 1 + 0 + 3 / 6) / 4),
        (3, (0 + 1 + 0 + 1 / 4) / 4),
        (4, (0 + 1 + 0 + 0) / 4),
    ],
)
def test_a_persistent_attacker_needs_one_wrong_draw(tries: int, expected: float) -> None:
    estimate = persistent_accuracy(FOUR, tries)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low <= estimate.value <= estimate.high


def test_one_draw_is_the_mean_over_draws() -> None:
    assert draw_accuracy(FOUR).value == pytest.approx(9 / 16)
    assert draw_accuracy(FOUR) == persistent_accuracy(FOUR, 1)


answers = st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=4)


@given(answers, st.integers(1, 5))
def test_persistence_is_the_share_of_sets_of_draws_that_are_all_right(draws: list[list[int]], tries: int) -> None:
    records = [record(image, 0, tuple(draws_of_image)) for image, draws_of_image in enumerate(draws)]
    sets = [
        all(answer == 0 for answer in subset)
        for draws_of_image in draws
        for subset in combinations(draws_of_image, tries)
    ]
    assert persistent_accuracy(records, tries).value == pytest.approx(np.mean(sets))


def test_more_tries_never_help_the_defender() -> None:
    values = [persistent_accuracy(FOUR, tries).value for tries in range(1, 5)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("tries", [0, 5])
def test_tries_beyond_the_draws_are_refused(tries: int) -> None:
    with pytest.raises(ValueError, match=rf"tries is {tries}, expected in \[1, 4\]"):
        persistent_accuracy(FOUR, tries)


def test_records_of_different_numbers_of_draws_are_refused() -> None:
    with pytest.raises(ValueError, match=r"records have \[3, 4\] draws"):
        draw_accuracy([*FOUR, record(4, 0, (0, 0, 0))])


def test_the_bootstrap_is_over_images() -> None:
    """For many images it approaches the normal interval of their mean. The draws of an image count as one number."""
    values = np.random.default_rng(5).uniform(size=2000)
    estimate = mean_over_images(values)
    half = 1.96 * values.std() / len(values) ** 0.5
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert mean_over_images(values) == estimate


@given(st.integers(1, 50), st.integers(0, 50))
def test_clopper_pearsons_interval_is_that_of_shares_as_well(images: int, doubled: int) -> None:
    """For integers it is scipy's interval, and in between it grows with the share."""
    correct = min(doubled, 2 * images) / 2
    low, high = clopper_pearson(correct, images)
    ends = [
        binomtest(int(count), images).proportion_ci(0.95, "exact") for count in (np.floor(correct), np.ceil(correct))
    ]
    assert ends[0].low - 1e-9 <= low <= ends[1].low + 1e-9
    assert ends[0].high - 1e-9 <= high <= ends[1].high + 1e-9


def test_equal_images_have_a_spread_all_the_same() -> None:
    """Resampling finds no uncertainty; the interval is as wide as if each image were right or wrong."""
    estimate = mean_over_images(np.full(8, 0.5))
    assert (estimate.low, estimate.high) == pytest.approx(Accuracy(4, 8).interval())


@pytest.mark.parametrize("images", [1, 7, 1000])
@pytest.mark.parametrize("value", [0, 1])
def test_where_no_image_or_every_one_stands_the_interval_is_clopper_pearsons(value: int, images: int) -> None:
    """Resampling finds no uncertainty, as if 7 images were enough to be certain."""
    estimate = mean_over_images(np.full(images, float(value)))
    assert (estimate.low, estimate.high) == Accuracy(value * images, images).interval()
    assert estimate.high - estimate.low >= 0.0036


def test_the_worst_attack_is_chosen_by_selection_and_scored_by_the_vote() -> None:
    first = [record(0, 1, (1,), vote=1, selection=0.3), record(1, 1, (1,), vote=0, selection=-0.2)]
    second = [record(0, 1, (1,), vote=0, selection=0.1), record(1, 1, (1,), vote=1, selection=-0.1)]
    records = worst_case({"first": first, "second": second})
    assert [one is other for one, other in zip(records, (first[0], second[1]), strict=True)] == [True, True]
    assert vote_accuracy(records) == Accuracy(2, 2)


def test_of_equal_attacks_the_first_is_the_worst() -> None:
    first, second = [record(0, 1, (1,), selection=0.1)], [record(0, 1, (2,), selection=0.1)]
    assert worst_case({"first": first, "second": second})[0] is first[0]


def test_attacks_on_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="second has other images than first"):
        worst_case({"first": FOUR, "second": FOUR[::-1]})


def test_the_papers_rule_takes_the_lowest_accuracy() -> None:
    weak = [record(0, 1, (1,), vote=1), record(1, 1, (1,), vote=1)]
    strong = [record(0, 1, (1,), vote=0), record(1, 1, (1,), vote=1)]
    assert papers_minimum({"weak": weak, "strong": strong, "as strong": strong}) == ("strong", Accuracy(1, 2))


@given(st.lists(st.integers(0, 10), min_size=1, max_size=60))
def test_the_bootstrap_stays_among_the_numbers_it_resamples(right: list[int]) -> None:
    estimate = mean_over_images(np.array(right) / 10)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


def test_the_bootstrap_corrects_for_bias_and_skewness() -> None:
    """Three of 60 images are sometimes right. Efron's BCa interval, written out here, ends higher than percentiles."""
    values = np.zeros(60)
    values[:3] = 0.9, 0.5, 0.2
    estimate = mean_over_images(values)
    means = np.random.default_rng(1).choice(values, (50_000, 60)).mean(1)
    below = (np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2
    bias, deviations = norm.ppf(below), values - values.mean()
    skewness = (deviations**3).sum() / (deviations**2).sum() ** 1.5 / 6
    shifted = [bias + (bias + z) / (1 - skewness * (bias + z)) for z in (-1.96, 1.96)]
    expected = np.percentile(means, 100 * norm.cdf(shifted))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), rel=0.05)
    assert estimate.high > 1.1 * np.percentile(means, 97.5)


def test_images_that_are_right_or_wrong_and_nothing_between_have_clopper_and_pearsons_interval() -> None:
    estimate = mean_over_images(np.array([1.0, 0.0, 1.0, 1.0]))
    assert estimate == Estimate(0.75, *Accuracy(3, 4).interval())
