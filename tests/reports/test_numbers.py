"""Rows, sweeps and curves computed from an evaluation's records."""

import csv
import io
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation_folder import CLEAN_IDENTITY, DRAWS, AttackCase, identity, record, share, write_evaluation
from neuroae.evaluation import Record
from neuroae.evaluation.results import load_partial
from neuroae.evaluation.statistics import Accuracy, vote_accuracy
from neuroae.reports.charts import majority_curve, persistent_curve, sweeps
from neuroae.reports.tables import AttackRow, attack_rows, columns, joint_rows, markdown, pairing, to_csv

CLEAN = AttackCase([True] * 12, CLEAN_IDENTITY)
ANSWERS = st.lists(st.tuples(*[st.integers(0, 2)] * DRAWS), min_size=1, max_size=6)


def make_records(answers: list[tuple[int, ...]]) -> list[Record]:
    return [record("pgd", image, True, draws=draws) for image, draws in enumerate(answers)]


def test_a_row_holds_what_the_records_say(tmp_path: Path) -> None:
    fields = {"linf": 0.1, "l2": 0.5, "zero": 1, "invalid": 2, "draws": (0, 1, 0, 1)}
    results = load_partial(
        write_evaluation(tmp_path, {"clean": CLEAN, "pgd": AttackCase(share(3, 12), fields=fields)})
    )
    clean, row = attack_rows(results)
    assert (row.attack, row.images, row.draws, row.gradients, row.forwards) == ("pgd", 12, DRAWS, 10, 0)
    assert (row.vote.value, row.vote.low, row.vote.high) == (0.25, *vote_accuracy(results.records["pgd"]).interval())
    assert (row.draw.value, row.draw.low, row.draw.high) == (0.5, *Accuracy(6, 12).interval())
    assert row.persistent.value == 0
    assert row.unusable == pytest.approx(0.3)
    assert (row.linf, row.l2) == pytest.approx((0.1, 0.5))
    assert (row.seconds, row.budget) == (2.5, 30.0)
    assert (clean.unusable, clean.budget, clean.vote.value) == (None, None, 1.0)


def test_attacks_of_a_budget_are_told_together(tmp_path: Path) -> None:
    attacks = {
        "clean": CLEAN,
        "white": AttackCase(share(6, 12), identity()),
        "first transfer": AttackCase(share(4, 12), identity("transfer")),
        "second transfer": AttackCase(share(8, 12), identity("transfer")),
        "wide": AttackCase(share(0, 12), identity(epsilon=0.5)),
        "without": AttackCase(share(0, 12), identity("images", epsilon=None)),
    }
    rows = {row.attack: row for row in joint_rows(load_partial(write_evaluation(tmp_path, attacks)))}
    assert list(rows) == [
        "linf 0.1, lowest of PW-T: first transfer",
        "linf 0.1, worst of each image of PW-T",
        "linf 0.1, lowest of all: first transfer",
        "linf 0.1, worst of each image",
    ]
    *transfers, lowest, worst = rows.values()
    assert [row.vote.value for row in rows.values()] == [4 / 12] * 4
    assert [(row.gradients, row.seconds, row.budget) for row in transfers] == [(20, 5.0, 60.0)] * 2
    assert [(row.gradients, row.seconds, row.budget) for row in (lowest, worst)] == [(30, 7.5, 90.0)] * 2


def test_attacks_are_paired_with_the_first_image_by_image(tmp_path: Path) -> None:
    """For three images against one, p is that of four tosses of a coin: 2 (1 + 4) / 2^4."""
    attacks = {
        "clean": CLEAN,
        "default": AttackCase([True] * 9 + [False] * 3),
        "other": AttackCase([False] * 3 + [True] * 7 + [False] * 2),
        "same": AttackCase([True] * 9 + [False] * 3),
    }
    pairs = pairing(load_partial(write_evaluation(tmp_path, attacks)))
    assert pairs is not None
    assert pairs.first == "default"
    assert pairs.rows() == [("other", "12", "3", "1", "0.62"), ("same", "12", "0", "0", "1")]


def test_one_attack_has_no_pair(tmp_path: Path) -> None:
    assert pairing(load_partial(write_evaluation(tmp_path, {"clean": CLEAN, "pgd": AttackCase([True] * 12)}))) is None


def test_transfers_alone_are_told_once(tmp_path: Path) -> None:
    transfers = {name: AttackCase(share(4, 12), identity("transfer")) for name in ("first", "second")}
    rows = joint_rows(load_partial(write_evaluation(tmp_path, {"clean": CLEAN, **transfers})))
    assert [row.attack for row in rows] == ["linf 0.1, lowest of all: first", "linf 0.1, worst of each image"]


def test_the_worst_of_an_image_is_chosen_by_selection_and_scored_by_votes(tmp_path: Path) -> None:
    attacks = {
        "clean": CLEAN,
        "chosen": AttackCase(share(9, 12), fields={"selection": 0.4}),
        "not chosen": AttackCase(share(3, 12), fields={"selection": 0.3}),
    }
    lowest, worst = joint_rows(load_partial(write_evaluation(tmp_path, attacks)))
    assert lowest.attack == "linf 0.1, lowest of all: not chosen"
    assert (lowest.vote.value, worst.vote.value) == (3 / 12, 9 / 12)


def test_an_image_that_needs_no_attack_is_not_saved_by_one(tmp_path: Path) -> None:
    """Four images are misclassified when clean and right under both attacks. The clean image is in the ball, too."""
    attacks = {
        "clean": AttackCase(share(8, 12), CLEAN_IDENTITY),
        "first": AttackCase([image > 5 for image in range(12)]),
        "second": AttackCase([image > 6 for image in range(12)]),
    }
    lowest, worst = joint_rows(load_partial(write_evaluation(tmp_path, attacks)))
    assert (lowest.vote.value, worst.vote.value) == (5 / 12, 1 / 12)
    assert (worst.gradients, worst.seconds) == (20, 5.0)


def test_the_worst_of_each_image_waits_for_the_clean_ones(tmp_path: Path) -> None:
    attacks = {
        "clean": AttackCase([True] * 12, CLEAN_IDENTITY, 0),
        "first": AttackCase([True] * 12),
        "second": AttackCase([True] * 12),
    }
    rows = joint_rows(load_partial(write_evaluation(tmp_path, attacks)))
    assert [row.attack for row in rows] == ["linf 0.1, lowest of all: first"]


def test_of_unfinished_attacks_common_images_are_compared(tmp_path: Path) -> None:
    attacks = {
        "clean": CLEAN,
        "first": AttackCase(share(2, 12)),
        "second": AttackCase(share(12, 12), images=4),
        "third": AttackCase(share(12, 12), identity(epsilon=0.3), images=4),
        "not begun": AttackCase(share(12, 12), identity(epsilon=0.3), images=0),
    }
    results = load_partial(write_evaluation(tmp_path, attacks))
    assert [(row.attack, row.images) for row in attack_rows(results)][-2:] == [("second", 4), ("third", 4)]
    lowest, worst = joint_rows(results)
    assert (lowest.images, lowest.vote.value) == (4, 0.5)
    assert (worst.images, worst.vote.value) == (4, 0.5)


@given(ANSWERS)
def test_the_persistent_curve_counts_all_sets_of_draws(answers: list[tuple[int, ...]]) -> None:
    records = make_records(answers)
    for tries, value in enumerate(persistent_curve(records), 1):
        sets = [
            all(answer == record.label for answer in draws)
            for record in records
            for draws in combinations(record.draws, tries)
        ]
        assert value == pytest.approx(fmean(sets))


@given(ANSWERS)
def test_the_majority_of_one_draw_is_that_draw(answers: list[tuple[int, ...]]) -> None:
    records = make_records(answers)
    curve = majority_curve(records)
    assert len(curve) == DRAWS
    assert curve[0] == pytest.approx(persistent_curve(records)[0])


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        pytest.param((0, 0, 0, 0), [1, 1, 1, 1], id="always-right"),
        pytest.param((0, 0, 0, 1), [3 / 4, 3 / 4, 1, 1], id="mostly-right"),
        pytest.param((0, 1, 0, 1), [1 / 2, 1 / 2, 1 / 2, 1 / 2], id="tied"),
        pytest.param((0, 1, 2, 2), [1 / 4, 1 / 4, 1 / 6, 0], id="three-answers"),
    ],
)
def test_majorities_of_draws_in_a_circle(draws: tuple[int, ...], expected: list[float]) -> None:
    assert majority_curve([record("pgd", 0, True, draws=draws)]) == pytest.approx(expected)


SQUARE = {**identity("gradient-free"), "method": "square", "surrogate": None, "gradients": 0, "forwards": 10}
SWEPT = {
    "clean": CLEAN,
    "PGD, epsilon 2": AttackCase(share(2, 12), identity(epsilon=0.2, step_size=0.02)),
    "PGD, epsilon 1": AttackCase(share(4, 12), identity(epsilon=0.1)),
    "PGD, 9 steps": AttackCase(share(1, 12), identity(epsilon=0.1, steps=9)),
    "FGSM": AttackCase(share(7, 12), identity(epsilon=0.1, steps=1, step_size=0.1)),
    "Square, draws 1": AttackCase(share(8, 12), SQUARE | {"settings": {"epsilon": 0.3, "draws": 1}}),
    "Square, draws 5": AttackCase(share(3, 12), SQUARE | {"settings": {"epsilon": 0.3, "draws": 5}}),
    "PGD from other": AttackCase(share(6, 12), identity("transfer", epsilon=0.3)),
    "PGD in l2": AttackCase(share(6, 12), identity(epsilon=0.4, norm="l2")),
}


def test_settings_that_vary_alone_make_sweeps(tmp_path: Path) -> None:
    results = load_partial(write_evaluation(tmp_path, SWEPT))
    by_epsilon, by_steps, by_draws = sweeps(results, attack_rows(results))
    assert (by_epsilon.setting, by_steps.setting) == ("epsilon", "steps")
    points = {
        name: [(point.value, point.accuracy.value) for point in points_of_line]
        for name, points_of_line in by_epsilon.lines.items()
    }
    assert points == {"W-NFGA smooth": [(0.0, 1.0), (0.1, 4 / 12), (0.2, 2 / 12)]}
    points = {
        name: [(point.value, point.accuracy.value) for point in points_of_line]
        for name, points_of_line in by_steps.lines.items()
    }
    assert points == {"W-NFGA smooth": [(5, 4 / 12), (9, 1 / 12)]}
    points = {
        name: [(point.value, point.accuracy.value) for point in points_of_line]
        for name, points_of_line in by_draws.lines.items()
    }
    assert points == {"Square": [(1, 8 / 12), (5, 3 / 12)]}


def test_lines_of_one_label_have_the_names_of_their_ends(tmp_path: Path) -> None:
    """The families differ in their steps, which are not part of a label."""
    sizes = {"one": (0.1, 5), "two": (0.2, 5), "three": (0.1, 9), "four": (0.2, 9)}
    attacks = {
        name: AttackCase(share(2, 12), identity(epsilon=size, steps=steps)) for name, (size, steps) in sizes.items()
    }
    results = load_partial(write_evaluation(tmp_path, {"clean": CLEAN} | attacks))
    by_epsilon, _ = sweeps(results, attack_rows(results))
    assert list(by_epsilon.lines) == ["one to two", "three to four"]


def test_labels_do_not_depend_on_names(tmp_path: Path) -> None:
    """A user's names for attacks, even misleading ones, do not change the labels."""
    attacks = {
        "clean": CLEAN,
        "W-AIGA, the first": AttackCase(share(2, 12), identity(epsilon=0.1)),
        "W-AIGA, the second": AttackCase(share(1, 12), identity(epsilon=0.2)),
    }
    results = load_partial(write_evaluation(tmp_path, attacks))
    (sweep,) = sweeps(results, attack_rows(results))
    assert list(sweep.lines) == ["W-NFGA smooth"]


def rows_of(folder: Path, attacks: dict[str, AttackCase]) -> list[AttackRow]:
    results = load_partial(write_evaluation(folder, attacks))
    return [*attack_rows(results), *joint_rows(results)]


def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"clean": CLEAN, "pgd": AttackCase(share(3, 12), fields={"linf": 0.1, "zero": 1})})
    lines = markdown(rows).splitlines()
    header, _, clean, attacked = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert header[:5] == ["attack", "accuracy, E = 4", "95% interval", "E = 1", "95% interval, E = 1"]
    assert clean[:3] == ["clean", "100.0%", "73.5% to 100.0%"]
    assert dict(zip(header, attacked, strict=True)) | {"95% interval": ""} == {
        "attack": "pgd",
        "accuracy, E = 4": "25.0%",
        "95% interval": "",
        "E = 1": "25.0%",
        "95% interval, E = 1": "5.5% to 57.2%",
        "all 4 draws right": "25.0%",
        "images": "12",
        "gradients per image": "10",
        "no gradient": "10.00%",
        "mean linf": "0.1000",
        "mean l2": "",
        "seconds": "2.5",
    }
    assert clean[-5:] == ["", "", "", "", "2.5"]


def test_one_draw_an_image_has_no_vote(tmp_path: Path) -> None:
    fields = {"draws": (0,)}
    one = {
        "clean": AttackCase([True] * 12, CLEAN_IDENTITY, fields=fields),
        "pgd": AttackCase([True] * 12, fields=fields),
    }
    titles = [column.title for column in columns(rows_of(tmp_path, one))]
    assert titles[:4] == ["attack", "accuracy, E = 1", "95% interval", "images"]


def test_csv_holds_all_digits(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"clean": CLEAN, "pgd, with a comma": AttackCase(share(7, 12))})
    clean, attacked = csv.DictReader(io.StringIO(to_csv(rows, deterministic=True, finished=False)))
    assert (clean["deterministic"], attacked["finished"]) == ("True", "False")
    assert attacked["attack"] == "pgd, with a comma"
    assert [float(attacked[name]) for name in ("vote", "vote_low", "vote_high")] == [*vars(rows[1].vote).values()]
    assert clean["unusable"] == clean["budget"] == ""
