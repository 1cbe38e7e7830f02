"""Evaluations under results/: this version reads them, and their tables say what their records say."""

from pathlib import Path

import pytest

from neuroae.evaluation import load_evaluation
from neuroae.evaluation.statistics import draw_accuracy, vote_accuracy
from neuroae.utils.files import load_json

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[2] / "results").glob("*/records.jsonl"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_evaluation_is_what_its_records_say(folder: Path) -> None:
    records = load_evaluation(folder).records
    summary = load_json(folder / "summary.json")
    assert summary["finished"]
    rows = {row["attack"]: row for row in summary["attacks"]}
    assert rows.keys() == records.keys()
    for name, attack_records in records.items():
        vote, draw = vote_accuracy(attack_records), draw_accuracy(attack_records)
        assert (rows[name]["images"], rows[name]["vote"]) == (len(attack_records), vote.value)
        assert (rows[name]["vote_low"], rows[name]["vote_high"]) == pytest.approx(vote.interval())
        assert rows[name]["draw"] == pytest.approx(draw.value)
        text = (folder / "results.md").read_text(encoding="utf-8")
        assert f"| {name} " in text
        assert f" {vote.value:.1%} |" in text
