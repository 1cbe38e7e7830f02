"""The worst case of a classifier: the effect of more starting points, and the page."""

from pathlib import Path

import pytest
from typer.testing import Result

from bent_model import bent_model, label_by_model
from neuroae import resnet32
from neuroae.utils.files import load_json, save_tensors
from results.outputs import SavedImages
from results.worst_case import attack_from_starts
from results_data import cifar10_folder, run


def test_more_starts_leave_fewer_right_answers(tmp_path: Path) -> None:
    """The other starts attack only images that the first start did not fool."""
    model = bent_model()
    data = label_by_model(model, 200)
    counts = {}
    for restarts in (1, 2, 8):
        rows = attack_from_starts(SavedImages(tmp_path / str(restarts), {}), model, data, restarts)
        assert [row.attack for row in rows] == ["1 start", f"{restarts} starts"][: len(rows)]
        assert all(row.largest <= 8 / 255 + 1e-6 for row in rows)
        counts[restarts] = rows[-1].correct
        assert rows[0].correct == counts[1]
    assert counts[1] >= counts[2] >= counts[8] > 0
    assert counts[1] > counts[8]


def test_command_writes_numbers_and_page_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.worst_case.STEPS", 1)
    save_tensors(tmp_path / "weights.safetensors", resnet32().state_dict())
    data = cifar10_folder(tmp_path / "data")
    arguments = ["--data-dir", data, "--weights", tmp_path / "weights.safetensors", "--output", tmp_path]
    arguments += ["--work", tmp_path / "work", "--limit", 2, "--restarts", 2]

    def start() -> tuple[Result, dict[Path, int]]:
        result = run("worst_case", *arguments)
        return result, {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}

    (first, files), (second, files_after) = start(), start()
    assert files == files_after
    assert files
    assert first.stdout == second.stdout
    result = run("worst_case", *arguments, "--method", "trades", "--loss", "cross-entropy")
    other = tmp_path / "worst_case-trades-cross-entropy" / "README.md"
    assert result.stdout.strip() in other.read_text()
    assert "45.79%" in other.read_text()
    assert "--method trades --loss cross-entropy`" in other.read_text()
    numbers = load_json(tmp_path / "worst_case" / "results.json")
    assert numbers["attack"]["restarts"] == 2
    assert [row["attack"] for row in numbers["rows"]] == ["1 start", "2 starts"]
    page = (tmp_path / "worst_case" / "README.md").read_text()
    assert first.stdout.strip() in page
    assert "{" not in page
