"""The model card: its header is YAML, its numbers come from the notes, and its example runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neuroae import Defense
from neuroae.models import folders
from saved_models import small_model


def clean_score(ensemble: int, accuracy: float, low: float, high: float) -> dict[str, Any]:
    fields = {"data": "cifar10 test", "attack": "clean", "images": 1000}
    return fields | {"ensemble": ensemble, "accuracy": accuracy, "low": low, "high": high}


NOTES: dict[str, Any] = {
    "run": {
        "method": "supervised",
        "images": 50000,
        "fingerprint": "f1a9",
        "preset": {"regularization": 0.25, "mean": [0.5, 0.125]},
        "training": {"augment": True, "precision": "bfloat16"},
    },
    "epochs": [{"stage": "decoder"}] * 3 + [{"stage": "classifier"}] * 2,
    "seconds": 5400.0,
    "scores": [clean_score(1, 0.75, 0.72, 0.78), clean_score(10, 0.8125, 0.79, 0.835)],
    "storage": [{"ensemble": 10, "float32": 0.8135, "float16": 0.8125, "changed": 4}],
    "versions": {"torch": "2.99.1", "commit": "c0ffee|dirty"},
    "scored_with": {"torch": "2.99.2"},
    "license": "apache-2.0",
}


def card(folder: Path, kind: str, notes: dict[str, Any], half: bool = False) -> str:
    small_model(kind).save_pretrained(folder, notes, half)
    return (folder / "README.md").read_text(encoding="utf-8")


def header(text: str) -> dict[str, Any]:
    _, yaml_text, _ = text.split("---\n", 2)
    return yaml.safe_load(yaml_text)  # type: ignore[no-any-return]


def cells(text: str) -> list[list[str]]:
    """Returns the rows of all tables."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]


def test_header_has_the_hubs_fields(tmp_path: Path) -> None:
    fields = header(card(tmp_path / "some", "defense", NOTES))
    assert fields["license"] == "apache-2.0"
    assert fields["library_name"] == "neuroae"
    assert fields["datasets"] == ["cifar10"]
    (index,) = fields["model-index"]
    assert index["name"] == "some"
    assert [result["metrics"][0]["value"] for result in index["results"]] == [0.75, 0.8125]
    for result in index["results"]:
        assert result["task"] == {"type": "image-classification"}
        assert result["dataset"] == {"type": "cifar10", "name": "cifar10 test"}
        assert result["metrics"][0]["type"] == "accuracy"


def test_tables_show_the_notes(tmp_path: Path) -> None:
    rows = cells(card(tmp_path / "some", "defense", NOTES))
    for row in [
        ["cifar10 test", "clean", "1", "75.00%", "72.00% to 78.00%", "1,000"],
        ["cifar10 test", "clean", "10", "81.25%", "79.00% to 83.50%", "1,000"],
        ["10", "81.35%", "81.25%", "4"],
        ["method", "supervised"],
        ["images", "50,000"],
        ["fingerprint", "f1a9"],
        ["training.augment", "yes"],
        ["training.precision", "bfloat16"],
        ["epochs done, decoder", "3"],
        ["epochs done, classifier", "2"],
        ["hours", "1.5"],
        ["torch", "2.99.1"],
        ["torch", "2.99.2"],
        ["commit", r"c0ffee\|dirty"],
        ["atoms", "12, 1, 3, 3"],
        ["encoder.dropout_p", "0.25"],
        ["encoder.quantize", "yes"],
        ["decoder.image_size", "8, 8"],
        ["classifier.num_classes", "10"],
    ]:
        assert row in rows
    assert not any(row[0].startswith("preset") for row in rows)


def test_sections_without_notes_are_left_out(tmp_path: Path) -> None:
    text = card(tmp_path, "defense", {"remark": "mine"})
    assert {"license", "datasets", "metrics", "model-index"}.isdisjoint(header(text))
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Intended use and limits", "Model"]


@pytest.mark.parametrize(("half", "text"), [(True, "of them as float16"), (False, "all of them as float32")])
@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_summary_counts_parameters_and_bytes(tmp_path: Path, kind: str, half: bool, text: str) -> None:
    page = card(tmp_path, kind, {}, half)
    assert text in page
    assert f"\n{sum(parameter.numel() for parameter in small_model(kind).parameters()):,} parameters" in page
    size = (tmp_path / "model.safetensors").stat().st_size / 1e6
    (megabytes,) = re.findall(r"; (.*) MB\.$", page, re.MULTILINE)
    assert float(megabytes) == pytest.approx(size, abs=0.1)
    assert ("without a proof" in page) == (kind == "defense")


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(folders, "SHIPPED", tmp_path)
    text = card(tmp_path / "shipped-name", kind, NOTES)
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert isinstance(names["model"], Defense) == (kind == "defense")
    torch.testing.assert_close(names["probabilities"].sum(-1), torch.ones(4))


@pytest.mark.parametrize(
    ("key", "value"),
    [("run", 3), ("epochs", 3), ("epochs", [{"loss": 1.0}]), ("scores", [{"accuracy": 0.5}]), ("seconds", "long")],
)
def test_notes_that_do_not_fit_are_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ValueError, match="notes do not fit a model card"):
        small_model("defense").save_pretrained(tmp_path, NOTES | {key: value})
    assert not list(tmp_path.iterdir())
