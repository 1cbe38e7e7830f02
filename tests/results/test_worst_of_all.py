"""The worst of each image over several evaluations: the joined records, the choice, and refusals to mix."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation_folder import CLEAN_IDENTITY, AttackCase, identity, write_evaluation
from neuroae.evaluation import Accuracy
from neuroae.utils.files import load_json
from results.worst_of_all import load_joined
from results_data import run

RIGHT = [True] * 6
ALL = ("table1", "table6", "beyond", "selection")


def attacked(right: list[bool], **settings: Any) -> AttackCase:
    return AttackCase(right, identity(**settings))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Returns a folder with Table 1 on six images and other attacks on the first four. One name occurs in both."""
    first = {"clean": AttackCase([*RIGHT[:5], False], CLEAN_IDENTITY)}
    first |= {"one": attacked([False, *RIGHT[1:]]), "two": attacked([True, True, False, *RIGHT[3:]])}
    second = {"clean": AttackCase(RIGHT[:4], CLEAN_IDENTITY), "one": attacked([True, False, True, True])}
    write_evaluation(tmp_path / "table1", first)
    write_evaluation(tmp_path / "table6", {"clean": AttackCase(RIGHT, CLEAN_IDENTITY), "none": attacked(RIGHT)})
    write_evaluation(tmp_path / "beyond", second)
    for name in ("selection", "selection-more"):
        write_evaluation(tmp_path / name, {"clean": AttackCase(RIGHT, CLEAN_IDENTITY), "through": attacked(RIGHT)})
    return tmp_path


def test_each_image_counts_by_its_worst_attack_of_all_evaluations(work: Path) -> None:
    """Three attacks fool one image each, and none fools the fourth."""
    result = run("worst_of_all", "--output", work)
    output = work / "worst_of_all"
    numbers = load_json(output / "results.json")
    rows = {row["attack"]: row for row in numbers["rows"]}
    selections = ["selection: through", "selection-more: through"]
    attacks = ["table1: one", "table1: two", "table6: none", "beyond: one", *selections]
    assert list(rows) == ["clean", *attacks, "worst of each image"]
    assert {row["images"] for row in rows.values()} == {4}
    assert [row["correct"] for row in rows.values()] == [4, 3, 3, 4, 3, 4, 4, 1]
    assert [row["chosen"] for row in rows.values()] == [1, 1, 1, 0, 1, 0, 0, 4]
    worst = rows["worst of each image"]
    assert (worst["accuracy"], worst["low"], worst["high"]) == (0.25, *Accuracy(1, 4).interval())
    assert worst["draw"] == 0.25
    assert worst["persistent"] == 0.25
    assert numbers["fingerprint"] == "a" * 64
    assert {name: each["images"] for name, each in numbers["evaluations"].items()} == {
        "table1": 6,
        "table6": 6,
        "beyond": 4,
        "selection": 6,
        "selection-more": 6,
    }
    page = (output / "README.md").read_text()
    assert result.stdout.strip() in page
    assert "of the 4 images" in page
    assert "The budget is linf 0.1." in page
    assert "fingerprint aaaaaaaaaaaaaaaa" in page


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        (
            "model",
            {"fingerprint": "c" * 64},
            "more than one model, expected one: table1 aaa.*; table6 aaa.*; beyond ccc",
        ),
        ("data", {"name": "other test"}, "more than one data set"),
        ("scoring", {"seed": 1}, "more than one scoring"),
    ],
)
def test_evaluations_that_differ_are_refused(work: Path, part: str, changed: dict[str, Any], message: str) -> None:
    manifest = load_json(work / "beyond" / "manifest.json")
    manifest["identity"][part] |= changed
    (work / "beyond" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        load_joined(work, ALL)


def test_other_budgets_are_refused(work: Path) -> None:
    wide = {"clean": AttackCase(RIGHT, CLEAN_IDENTITY), "wide": attacked(RIGHT, epsilon=0.5)}
    shutil.rmtree(work / "table6")
    write_evaluation(work / "table6", wide)
    with pytest.raises(ValueError, match=r"more than one budget.*table6 linf 0\.5"):
        load_joined(work, ALL)


def test_sources_of_one_name_must_be_one(work: Path) -> None:
    for name, mark in (("table1", "5"), ("beyond", "6")):
        manifest = load_json(work / name / "manifest.json")
        manifest["identity"]["attacks"]["one"]["source"] = {"name": "unquantized", "fingerprint": mark * 64}
        (work / name / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"more than one source 'unquantized', expected one: table1 555.*; beyond 666"
    ):
        load_joined(work, ALL)


def test_one_that_is_missing_is_named(work: Path) -> None:
    (work / "beyond" / "records.jsonl").unlink()
    with pytest.raises(ValueError, match=r"lacks beyond of the evaluations table1, table6, beyond, selection"):
        load_joined(work, ALL)


def test_some_of_the_evaluations_may_be_asked_for(work: Path) -> None:
    run("worst_of_1000", "--output", work)
    rows = load_json(work / "worst_of_1000" / "results.json")["rows"]
    attacks = ["table1: one", "table1: two", "selection: through", "selection-more: through"]
    assert [row["attack"] for row in rows] == ["clean", *attacks, "worst of each image"]
    assert {row["images"] for row in rows} == {6}
    assert list(load_joined(work, ("selection", "table1"))) == ["selection", "table1"]
