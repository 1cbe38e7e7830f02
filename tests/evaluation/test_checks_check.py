"""Lines of the sanity report."""

from pathlib import Path

import pytest

from neuroae.evaluation.checks import Budget, Check, load_checks, merged, save_checks
from neuroae.utils.files import save_json


def test_what_records_do_not_measure_comes_from_another_report() -> None:
    checks = [Check("a", "pass", "", "", numbers={"x": 1}), Check("b", "warn", "", ""), Check("c", "warn", "", "")]
    others = [
        Check("d", "pass", "", "", numbers={"x": 4}),
        Check("a", "fail", "", "", numbers={"x": 2}),
        Check("b", "fail", "", "", numbers={"x": 3}),
        Check("c", "fail", "", ""),
    ]
    assert merged(checks, others) == [checks[0], others[2], others[3], others[0]]


def test_checks_come_back_from_their_file(tmp_path: Path) -> None:
    checks = [Check("a", "pass", "x", "y", numbers={"z": 0.1}), Check("b", "fail", "x", "y", "do")]
    save_checks(tmp_path / "sanity.json", checks)
    assert load_checks(tmp_path / "sanity.json") == checks
    save_json(tmp_path / "other.json", [{"title": "x"}])
    with pytest.raises(ValueError, match=r"other\.json does not hold checks"):
        load_checks(tmp_path / "other.json")
    with pytest.raises(ValueError, match="verdict is 'fine', expected one of pass, warn, fail"):
        Check("x", "fine", "", "")  # type: ignore[arg-type]


def test_a_line_says_what_to_do_where_it_did_not_pass() -> None:
    assert Check("name", "pass", "found", "meaning").line == "PASS  name: found"
    assert Check("name", "fail", "found", "meaning", "advice").line == "FAIL  name: found\n      advice"


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget("linf", 8 / 255), "linf 8/255"),
        (Budget("linf", 0.1875), "linf 0.1875"),
        (Budget("l2", 2 / 255), "l2 0.00784314"),
    ],
    ids=str,
)
def test_budgets_are_told_in_levels_where_they_are_whole(budget: Budget, text: str) -> None:
    assert str(budget) == text


def test_checks_of_earlier_versions_have_their_present_names(tmp_path: Path) -> None:
    earlier = {"verdict": "pass", "found": "10 draws", "meaning": "m", "advice": "", "numbers": {"draws": 10}}
    save_json(tmp_path / "sanity.json", [{"name": "scores are not of single draws", **earlier}])
    assert load_checks(tmp_path / "sanity.json") == [
        Check("a random model is scored on several draws", "pass", "10 draws", "m", numbers={"draws": 10})
    ]
