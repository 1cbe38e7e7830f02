"""Training that starts from a saved model: its weights, the notes on earlier trainings, and refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from neuroae import Defense
from neuroae.cli import app
from neuroae.models import load_pretrained

SMALL = ["--atoms", "20", "--top-t", "6", "--dictionary", "atoms.safetensors"]


def train(output: str, *options: str, epochs: int = 1) -> tuple[torch.nn.Module, dict[str, Any]]:
    common = [
        "train",
        "--dataset",
        "digits",
        "--limit",
        "40",
        "--hold-out",
        "8",
        "--epochs",
        str(epochs),
        "--output",
        output,
    ]
    CliRunner().invoke(app, [*common, *options], catch_exceptions=False)
    return load_pretrained(output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the atoms, the defense "first" and the classifier "plain"."""
    folder = tmp_path_factory.mktemp("start")
    arguments = ["dictionary", "--dataset", "digits", "--atoms", "20", "--iterations", "3"]
    CliRunner().invoke(app, [*arguments, "--output", str(folder / "atoms.safetensors")], catch_exceptions=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train("first", *SMALL)
        train("plain", "--method", "plain")
    return folder


@pytest.fixture(autouse=True)
def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(("name", "method"), [("first", "supervised"), ("first", "unsupervised"), ("plain", "plain")])
def test_at_rate_zero_the_weights_are_those_of_the_start(name: str, method: str) -> None:
    start, _ = load_pretrained(name)
    steps = [] if method == "plain" else ["--top-t", "6"]
    steps += ["--decoder-epochs", "1"] if method == "unsupervised" else []
    model, _ = train(f"still-{method}", "--init", name, "--method", method, "--learning-rate", "0", *steps)
    assert {key for key, value in model.named_parameters()} == {key for key, value in start.named_parameters()}
    for key, value in start.named_parameters():
        assert torch.equal(model.get_parameter(key), value), key
    if isinstance(model, Defense) and isinstance(start, Defense):
        assert torch.equal(model.encoder.atoms, start.encoder.atoms)


def test_the_past_is_kept_with_the_model_and_shown_on_its_card(folder: Path) -> None:
    _, first = load_pretrained("first")
    _, second = train("second", "--init", "first", "--top-t", "6", "--seed", "1", epochs=2)
    _, third = train("third", "--init", str(folder / "second"), "--top-t", "6", "--seed", "2")
    assert "earlier" not in first
    assert [earlier["run"] for earlier in third["earlier"]] == [first["run"], second["run"]]
    assert [len(earlier["epochs"]) for earlier in third["earlier"]] == [1, 2]
    card = " ".join((folder / "third" / "README.md").read_text().split())
    assert "| training before, 1.epochs done, defense | 1 |" in card
    assert "| training before, 2.epochs done, defense | 2 |" in card
    assert "| training before, 2.seed | 1 |" in card


def test_a_run_goes_on_only_with_the_start_that_it_had() -> None:
    options = ["--atoms", "20", "--top-t", "6"]
    train("tied", "--init", "first", *options)
    with pytest.raises(ValueError, match=r"belongs to another run: init is .* there and None here"):
        train("tied", *SMALL)
    train("other", *SMALL, "--seed", "5")
    with pytest.raises(ValueError, match="belongs to another run: init"):
        train("tied", "--init", "other", *options)


def test_the_size_of_given_atoms_is_what_the_model_notes(folder: Path) -> None:
    model, notes = train("sized", "--top-t", "6", "--dictionary", "atoms.safetensors")
    assert isinstance(model, Defense)
    assert len(model.encoder.atoms) == notes["run"]["preset"]["atoms"] == 20
    assert "| atoms | 20, 1, 4, 4 |" in " ".join((folder / "sized" / "README.md").read_text().split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-t", "6", "--atoms", "21", "--dictionary", "atoms.safetensors"], "--atoms is 21, but atoms.safe.* 20"),
        (["--top-t", "6", "--atoms", "21", "--init", "first"], "--atoms is 21, but --init holds 20"),
        (
            ["--init", "first", "--top-t", "7"],
            "--init is a model with other settings: first.encoder.top_t is 6 there and 7 here",
        ),
        (
            ["--init", "first", "--method", "plain"],
            "--init is a model with other settings: first.model is 'defense' there",
        ),
        (["--init", "plain"], "--init is 'plain', a classifier without a dictionary, expected a defense"),
        (["--init", "first", "--top-t", "6", "--dictionary", "others.safetensors"], "--init has other atoms than"),
        (["--init", "nowhere"], "unknown name 'nowhere'"),
    ],
    ids=["fewer-in-file", "fewer-in-start", "settings", "kind", "no-atoms", "atoms", "missing"],
)
def test_a_start_that_does_not_fit_is_refused(folder: Path, options: list[str], message: str) -> None:
    others = folder / "others.safetensors"
    if not others.exists():
        arguments = ["dictionary", "--dataset", "digits", "--atoms", "20", "--iterations", "3", "--seed", "9"]
        CliRunner().invoke(app, [*arguments, "--output", str(others)], catch_exceptions=False)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train("refused", *options)
    assert not (folder / "refused").exists()
