"""The report of an evaluation: its files, and its warnings for unfinished evaluations."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from evaluation_folder import (
    ATTACKS,
    CLEAN_IDENTITY,
    AttackCase,
    clean_images,
    earlier_line,
    identity,
    share,
    write_evaluation,
)
from models import small_defense
from neuroae import reports
from neuroae.attacks import PGDSettings
from neuroae.cli import app
from neuroae.data import ImageSet
from neuroae.evaluation import Evaluation, Scoring, attacks_from, load_evaluation, run_evaluation
from neuroae.evaluation.checks import INPUT_RANGE, Check, load_checks, probe_evaluation, save_checks
from neuroae.evaluation.checks.outcomes import TRANSFER
from neuroae.evaluation.checks.sanity import EARLIER_PENDING, PENDING
from neuroae.evaluation.checks.threat_model import BALL
from neuroae.evaluation.folder import from_line, to_line
from neuroae.evaluation.results import image_pairs
from neuroae.reports import Report, write_report
from neuroae.reports.report import FIXED_MASKS, UNFINISHED
from neuroae.utils.files import load_json, save_json
from small_evaluation import contents, small_evaluation

FILES = ("summary.json", "results.csv", "results.md", "sanity.json", "report.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the folder of an evaluation without a report."""
    return write_evaluation(tmp_path / "evaluation", ATTACKS)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a report, which tests must not change."""
    folder = write_evaluation(tmp_path_factory.mktemp("reported"), ATTACKS)
    write_report(folder)
    return folder


def test_a_report_is_files_that_agree(reported: Path) -> None:
    report = Report.of(reported)
    summary = load_json(reported / "summary.json")
    assert (summary["model"], summary["finished"], summary["deterministic"]) == ("small <model>", True, False)
    assert summary["data"]["images"] == 12
    assert summary["seconds"] == 10.0
    assert summary["sanity"] == report.verdicts
    assert sum(report.verdicts.values()) == len(load_checks(reported / "sanity.json")) == 12
    with (reported / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["attack"] for line in lines] == [row["attack"] for row in summary["attacks"] + summary["together"]]
    assert [float(line["vote"]) for line in lines[:4]] == [11 / 12, 8 / 12, 2 / 12, 1 / 12]
    markdown = (reported / "results.md").read_text(encoding="utf-8")
    assert markdown.startswith("# small <model> on 12 images of pets test\n")
    assert report.table in markdown
    assert report.paired is not None
    assert f"## Against the first attack\n\n{report.paired.markdown()}\n\n{report.paired.note}" in markdown
    assert "- model: small <model>, Defense, fingerprint aaaaaaaaaaaaaaaa…" in markdown
    assert "- versions: neuroae 1.0, torch 2.6" in markdown
    assert summary["against"]["first"] == "white <box>"
    assert summary["against"]["others"]["transfer"]["first"] == 6
    for check in report.checks:
        assert f"- **{check.verdict}**: {check.name}: {check.finding}" in markdown


def test_a_transfer_that_beats_the_white_box_fails(reported: Path) -> None:
    checks = {check.name: check for check in Report.of(reported).checks}
    assert checks[TRANSFER.name].verdict == "fail"
    assert "white <box> leaves 66.7% and transfer 16.7%" in checks[TRANSFER.name].finding
    assert checks[BALL].verdict == "pass"


def test_the_same_evaluation_gives_the_same_files(reported: Path, folder: Path) -> None:
    write_report(folder)
    for name in FILES:
        assert (folder / name).read_bytes() == (reported / name).read_bytes()


def test_saved_images_are_paired_with_the_clean_ones(reported: Path) -> None:
    blocks = list(image_pairs(reported, "white <box>"))
    assert [block.ids.tolist() for block in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    clean, perturbed = (torch.cat([getattr(block, name) for block in blocks]) for name in ("clean", "perturbed"))
    assert torch.equal(clean, clean_images(12))
    torch.testing.assert_close((perturbed - clean).abs(), torch.full_like(clean, 0.1))


def test_an_evaluation_that_goes_on_is_reported_loudly(tmp_path: Path) -> None:
    attacks = {**ATTACKS, "transfer": AttackCase(share(2, 12), identity("transfer"), images=4)}
    folder = write_evaluation(tmp_path, attacks)
    write_report(folder)
    assert f'<p class="loud" role="alert">{UNFINISHED}</p>' in (folder / "report.html").read_text(encoding="utf-8")
    assert "**UNFINISHED" in (folder / "results.md").read_text(encoding="utf-8")
    assert load_json(folder / "summary.json")["finished"] is False
    assert [row["images"] for row in load_json(folder / "summary.json")["attacks"]] == [12, 12, 4, 12]


def test_fixed_masks_are_reported_loudly(tmp_path: Path) -> None:
    fields = {"draws": (0,)}
    attacks = {
        "clean": AttackCase([True] * 6, CLEAN_IDENTITY, fields=fields),
        "pgd": AttackCase([True, False] * 3, fields=fields),
    }
    folder = write_evaluation(tmp_path, attacks, deterministic=True)
    report = write_report(folder)
    assert str(report).startswith("FIXED MASKS")
    assert f'<p class="loud" role="alert">{FIXED_MASKS}</p>' in (folder / "report.html").read_text(encoding="utf-8")
    assert "**FIXED MASKS" in (folder / "results.md").read_text(encoding="utf-8")
    assert [check.verdict for check in report.checks if "masks were fixed" in check.finding] == ["fail"]


def test_what_cannot_be_measured_again_is_kept(folder: Path) -> None:
    before = [check for check in Report.of(folder).checks if check != PENDING]
    probed = Check(INPUT_RANGE, "warn", "probed", "", numbers={"x": 1})
    save_checks(folder / "sanity.json", [*before, probed])
    for path in (folder / "images").rglob("*.safetensors"):
        path.unlink()
    assert Report.of(folder).checks == [*before, probed]


def test_probes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = small_defense(channels=3), small_defense(channels=3)
    data = ImageSet(
        "some", torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.arange(4), torch.arange(4), "abcdefghij"
    )  # type: ignore[arg-type]
    budget = PGDSettings(0.1, 0.05, steps=1, realizations=1)
    attacks = [*attacks_from(model, budget, ["w-aiga"]), *attacks_from(other, budget, ["w-aiga"], transfer="other")]
    evaluation = Evaluation(model, data, attacks, Scoring(draws=2), 4, "small")
    run_evaluation(evaluation, tmp_path)
    assert INPUT_RANGE in {check.name for check in load_checks(tmp_path / "sanity.json")}
    assert all(check.measured for check in Report.of(tmp_path).checks if "gradient-free" not in check.name)
    before = contents(tmp_path)
    monkeypatch.setattr("neuroae.evaluation.checks.sanity.probe", None)
    monkeypatch.setattr("neuroae.evaluation.checks.sanity.probe_batches", None)
    run_evaluation(evaluation, tmp_path)
    assert contents(tmp_path) == before


def test_reports_run_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = small_evaluation(images=4)
    monkeypatch.setattr("neuroae.evaluation.checks.sanity.STEPS", 2)
    run_evaluation(evaluation, tmp_path)
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    assert write_report(tmp_path).results.finished


def test_the_old_name_of_the_probes_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="run_evaluation probes as its last step"):
        assert reports.probe_evaluation is probe_evaluation
    with pytest.raises(AttributeError, match="has no attribute 'probe'"):
        reports.probe  # noqa: B018


def test_until_they_are_made_probes_are_listed_as_missing(folder: Path) -> None:
    assert PENDING in Report.of(folder).checks
    write_report(folder)
    assert PENDING in Report.of(folder).checks
    save_checks(folder / "sanity.json", [Check(INPUT_RANGE, "warn", "one class", "")])
    assert [check.finding for check in Report.of(folder).checks if check.name == INPUT_RANGE] == ["one class"]


def test_missing_probes_of_an_earlier_version_are_missing(folder: Path) -> None:
    stored = [{"name": INPUT_RANGE, "verdict": "warn", "found": EARLIER_PENDING, "meaning": "", "advice": "Do."}]
    save_json(folder / "sanity.json", stored)
    assert PENDING in Report.of(folder).checks
    assert sum(check.name == INPUT_RANGE for check in Report.of(folder).checks) == 1


def test_an_attack_on_fixed_masks_of_an_earlier_version_is_reported(tmp_path: Path) -> None:
    """The variant no longer exists; folders with it still load and report."""
    attacks = {
        "clean": AttackCase(share(11, 12), CLEAN_IDENTITY),
        "W-AIGA fixed-masks": AttackCase(share(8, 12), {**identity(), "variant": "fixed-masks"}),
    }
    folder = write_evaluation(tmp_path, attacks)
    write_report(folder)
    assert "pgd, white-box, smooth, fixed-masks, float32" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_damaged_sanity_report_is_made_anew(folder: Path) -> None:
    (folder / "sanity.json").write_text("[")
    with pytest.warns(UserWarning, match=r"sanity\.json is not a JSON file: .*; it will be written again"):
        assert PENDING in Report.of(folder).checks


def test_images_that_a_killed_process_was_writing_are_passed_over(folder: Path) -> None:
    for attack in ("clean", "transfer"):
        (folder / "images" / attack / ".00000-abcd1234.safetensors").write_bytes(b"")
    assert len(list(image_pairs(folder, "transfer"))) == len(list(image_pairs(folder, "clean")))


def test_without_images_a_page_says_so(folder: Path) -> None:
    shutil.rmtree(folder / "images")
    with pytest.warns(UserWarning, match="holds no images: the page shows no examples"):
        write_report(folder)
    assert "<h2>Examples</h2>" not in (folder / "report.html").read_text(encoding="utf-8")


def test_an_evaluation_that_is_being_mended_is_unfinished(folder: Path) -> None:
    records = folder / "records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]))
    assert UNFINISHED in Report.of(folder).warnings


def test_seconds_come_from_the_parts_where_the_whole_is_lost(folder: Path) -> None:
    expected = Report.of(folder).results.seconds
    (folder / "times").mkdir(exist_ok=True)
    (folder / "times.jsonl").rename(folder / "times" / "part-0.jsonl")
    assert Report.of(folder).results.seconds == expected
    assert sum(expected.values()) > 0


@pytest.mark.parametrize("part", ["costs", "identity.order", "identity.attacks.transfer"])
def test_a_manifest_that_lacks_something_is_named(folder: Path, part: str) -> None:
    manifest = load_json(folder / "manifest.json")
    *parents, name = part.split(".")
    within = manifest
    for parent in parents:
        within = within[parent]
    del within[name]
    save_json(folder / "manifest.json", manifest)
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged: {part} is missing"):
        Report.of(folder)


WRONG = {
    "no family": ("identity.attacks.transfer", "family", None, "family is missing"),
    "gradients in words": ("identity.attacks.transfer", "gradients", "many", "gradients is a str, expected int"),
    "an attack that is text": ("identity.attacks", "transfer", "PGD", "transfer is a str, expected dict"),
    "an order of numbers": ("identity", "order", [1, 2], "order holds a int, expected str alone"),
    "an order that is a number": ("identity", "order", 3, "order is a int, expected list"),
    "costs that are a list": ("", "costs", [], "costs is a list, expected dict"),
    "a cost in words": ("costs.transfer", "C", "3", r"C is a str, expected int or float"),
    "no seed": ("identity.scoring", "seed", None, "seed is missing"),
    "versions of text": ("", "versions", ["1.0"], "versions holds a str, expected dict alone"),
    "images in words": ("identity.data", "images", "12", "images is a str, expected int"),
}


@pytest.mark.parametrize(("outer", "name", "value", "message"), WRONG.values(), ids=WRONG)
def test_a_manifest_of_the_wrong_types_is_named(
    folder: Path, outer: str, name: str, value: object, message: str
) -> None:
    manifest = load_json(folder / "manifest.json")
    within = manifest
    for parent in filter(None, outer.split(".")):
        within = within[parent]
    within.update({name: value})
    if value is None:
        del within[name]
    save_json(folder / "manifest.json", manifest)
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged: {outer}\.?{message}"):
        Report.of(folder)


KILLED = """
import os, signal, sys
from neuroae.reports import write_report

def replace(temporary, path, replace=os.replace):
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(temporary, path)

os.replace = replace
write_report(sys.argv[1])
"""


@pytest.mark.parametrize("name", [FILES[0], FILES[-1]])
def test_what_a_killed_report_left_is_removed_when_it_is_old(folder: Path, name: str) -> None:
    """A new temporary file may belong to a report that is being written."""
    before = set(folder.iterdir())
    assert subprocess.run([sys.executable, "-c", KILLED, folder, name]).returncode == -signal.SIGKILL
    left = {path for path in folder.iterdir() if path.name.startswith(f".{Path(name).stem}-")}
    assert len(left) == 1
    write_report(folder)
    assert left <= set(folder.iterdir())
    for path in set(folder.iterdir()) - before:
        os.utime(path, (0, 0))
    write_report(folder)
    assert {path.name for path in set(folder.iterdir()) - before} == set(FILES)


OTHER_LINES = ({}, [], 3, {"attack": "clean"}, {"attack": 1, "block": 0, "seconds": 1.0})


@pytest.mark.parametrize("value", OTHER_LINES, ids=str)
def test_lines_of_something_else_are_left_out(folder: Path, value: Any) -> None:
    expected = Report.of(folder)
    line = to_line(value) if isinstance(value, dict) else earlier_line(value)
    for path in (folder / "records.jsonl", folder / "times.jsonl"):
        path.write_text(line + path.read_text())
    actual = Report.of(folder)
    assert actual.table == expected.table
    assert actual.results.seconds == expected.results.seconds


def test_a_record_of_the_wrong_types_is_a_record_that_is_lacking(folder: Path) -> None:
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    wrong = (from_line(lines[-1]) or {}) | {"vote": "cat"}
    (folder / "records.jsonl").write_text("".join(lines[:-1]) + to_line(wrong))
    with pytest.raises(ValueError, match=r"records\.jsonl is damaged: start the evaluation again to mend it"):
        load_evaluation(folder)


def test_checks_of_the_wrong_types_are_named(folder: Path) -> None:
    for value in ([{"name": "some", "verdict": "maybe", "finding": "", "meaning": ""}], [3], {"a": 1}):
        save_json(folder / "sanity.json", value)
        with pytest.raises(ValueError, match=r"sanity\.json does not hold checks"):
            load_checks(folder / "sanity.json")


def test_the_command_prints_the_table_and_the_checks(folder: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    report = Report.of(folder)
    assert result.stdout == f"{report}\n\npage: {folder / 'report.html'}\n"
    for check in report.checks:
        assert f"{check.verdict.upper()}  {check.name}: {check.finding}\n" in result.stdout


def test_folders_without_an_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        write_report(tmp_path)
    nothing_yet = {name: AttackCase(case.right, case.identity, images=0) for name, case in ATTACKS.items()}
    with pytest.raises(ValueError, match="holds no records yet"):
        write_report(write_evaluation(tmp_path / "begun", nothing_yet))
