"""The verbs, on settings that take seconds."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuroae import Defense
from neuroae.cli import app, main
from neuroae.dictionary import load_dictionary
from neuroae.models import load_pretrained
from neuroae.utils.files import load_tensors

PLAIN = ["train", "--dataset", "digits", "--method", "plain", "--precision", "bfloat16", "--epochs", 1, "--limit", 64]
QUICK = ["--atoms", "40", "--top-t", "6", "--epochs", "1", "--limit", "64"]


def neuroae(*arguments: object) -> str:
    """Runs the command line; returns what it printed to standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a defense, an unsupervised one on the same dictionary, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    dictionary = folder / "dictionary.safetensors"
    neuroae("dictionary", "--dataset", "digits", "--atoms", 40, "--iterations", 5, "--output", dictionary)
    common = ["train", "--dataset", "digits", "--dictionary", dictionary, *QUICK]
    neuroae(*common, "--output", folder / "supervised")
    neuroae(*common, "--output", folder / "unsupervised", "--method", "unsupervised", "--decoder-epochs", 1)
    neuroae(*PLAIN, "--output", folder / "plain")
    return folder


def test_dictionary_is_saved_with_its_settings(models: Path) -> None:
    path = models / "dictionary.safetensors"
    assert load_dictionary(path).shape == (40, 1, 4, 4)
    notes = load_tensors(path)[1]
    assert notes["data"] == "digits train"
    assert notes["iterations"] == 5
    assert notes["images"] == 1297


@pytest.mark.parametrize("method", ["supervised", "unsupervised", "plain"])
def test_training_saves_a_model_with_its_history(models: Path, method: str) -> None:
    model, notes = load_pretrained(models / method)
    assert isinstance(model, Defense) == (method != "plain")
    assert notes["run"]["method"] == method
    assert notes["run"]["images"] == 64
    assert len(notes["epochs"]) == (2 if method == "unsupervised" else 1)
    assert [(score["data"], score["images"]) for score in notes["scores"]] == [("digits test", 500)]
    assert notes["run"]["training"]["precision"] == ("bfloat16" if method == "plain" else "float32")
    if isinstance(model, Defense):
        assert torch.equal(model.encoder.atoms, load_dictionary(models / "dictionary.safetensors"))
        assert model.encoder.top_t == 6


@pytest.mark.parametrize("method", ["supervised", "unsupervised", "plain"])
def test_training_leaves_a_table_and_a_picture_of_its_epochs(models: Path, method: str) -> None:
    _, notes = load_pretrained(models / method)
    with (models / method / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == [epoch["stage"] for epoch in notes["epochs"]]
    assert [float(row["loss"]) for row in rows] == [epoch["loss"] for epoch in notes["epochs"]]
    assert (models / method / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_training_is_left_alone_and_another_is_refused(models: Path) -> None:
    again = [*PLAIN, "--output", models / "plain"]
    before = {path: path.stat().st_mtime_ns for path in (models / "plain").iterdir()}
    assert "plain is trained already" in neuroae(*again)
    with pytest.raises(
        ValueError, match=r"run\.json belongs to another run: training\.batch_size is 64 there and 32 here"
    ):
        neuroae(*again, "--batch-size", 32)
    assert {path: path.stat().st_mtime_ns for path in (models / "plain").iterdir()} == before


def test_held_out_images_are_scored_in_place_of_the_test_images(tmp_path: Path) -> None:
    neuroae(*PLAIN, "--hold-out", 14, "--output", tmp_path / "model")
    _, notes = load_pretrained(tmp_path / "model")
    assert notes["run"]["images"] == 50
    assert notes["scores"][0]["images"] == 14
    assert "held out" in notes["scores"][0]["data"]
    assert notes["epochs"][0]["validation_accuracy"] is not None


def test_settings_that_make_no_model_are_refused_before_atoms_are_learned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dropout_p is 1\.5"):
        neuroae("train", "--dataset", "digits", "--dropout-p", 1.5, "--output", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device is 'warp'"):
        neuroae(*PLAIN, "--device", "warp", "--output", tmp_path / "model")


def test_without_a_dictionary_training_learns_one(tmp_path: Path) -> None:
    few = ["--atoms", 12, "--top-t", 6, "--epochs", 1, "--limit", 32, "--stride", 1, "--no-quantize"]
    neuroae("train", "--dataset", "digits", *few, "--output", tmp_path / "model")
    model, _ = load_pretrained(tmp_path / "model")
    assert isinstance(model, Defense)
    assert model.encoder.atoms.shape == (12, 1, 4, 4)
    assert not model.encoder.quantize
    assert model.encoder.stride == 1


def test_attack_and_report(models: Path, tmp_path: Path) -> None:
    few = ["--limit", 3, "--mode", "w-aiga", "--steps", 1, "--realizations", 1, "--ensemble", 2]
    arguments = [models / "supervised", "--dataset", "digits", "--source", models / "plain", *few]
    printed = neuroae("attack", *arguments, "--output", tmp_path)
    for name in ("clean", "W-AIGA", "PGD from plain"):
        assert f"| {name} " in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert {"manifest.json", "records.jsonl", "summary.json", "report.html"} <= names
    assert neuroae("report", tmp_path) == printed


@pytest.mark.parametrize("verb", ["demo", "dictionary", "train", "attack", "report"])
def test_every_verb_has_help(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = neuroae(verb, "--help")
    assert f"Usage: neuroae {verb}" in printed
    assert "default" in printed


def test_help_shows_the_defaults_of_each_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "digits: 160; cifar10: 500" in neuroae("train", "--help")
    assert "digits: 0.1875; cifar10: 0.03137" in neuroae("attack", "--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "cifar10", "--output", "x"], "cifar10 needs data_dir"),
        (
            ["attack", "nowhere", "--dataset", "digits", "--output", "x"],
            "unknown name 'nowhere': neither a folder nor one of",
        ),
        (["report", "nowhere"], "nowhere/manifest.json is missing"),
        (
            ["train", "--dataset", "digits", "--output", "x", "--dictionary", "no.safetensors"],
            "no.safetensors is missing",
        ),
    ],
)
def test_mistakes_end_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["neuroae", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    text = str(ended.value)
    assert text.startswith("neuroae: ")
    assert message in text
    assert len(text.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_atoms_of_other_settings_are_not_taken_over(tmp_path: Path) -> None:
    """A run that was stopped after saving its atoms, before its first checkpoint, has left no other trace."""
    few = ["--top-t", 6, "--epochs", 1, "--limit", 32, "--hold-out", 8]
    common = ["train", "--dataset", "digits", *few, "--output", tmp_path / "model"]
    neuroae(*common, "--atoms", 12)
    for path in (tmp_path / "model").iterdir():
        if path.name != "dictionary.safetensors":
            path.unlink()
    with pytest.raises(ValueError, match=r"dictionary\.safetensors belongs to another run: atoms is 12 there and 14"):
        neuroae(*common, "--atoms", 14)
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        neuroae(*common, "--atoms", 12, "--seed", 1)


def test_a_training_that_diverges_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*PLAIN, "--learning-rate", "1e30", "--batch-size", "8", "--output", tmp_path / "model"]
    monkeypatch.setattr(sys, "argv", ["neuroae", *map(str, arguments)])
    with pytest.raises(SystemExit, match=r"neuroae: the loss became .*; a lower learning rate may help"):
        main()
