"""``neuroae dictionary``: what it writes, and what it refuses before any work."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuroae.cli import app
from neuroae.data import load_dataset
from neuroae.dictionary import learn_dictionary, load_dictionary
from neuroae.models.presets import PRESETS, make_dictionary
from neuroae.utils.files import load_tensors, save_tensors
from neuroae.utils.versions import versions


def learn_by_command(*arguments: object) -> str:
    """Runs ``neuroae dictionary`` on the digits; returns what it printed."""
    words = ["dictionary", "--dataset", "digits", *map(str, arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_keeps_settings_data_and_versions_with_the_atoms(tmp_path: Path) -> None:
    path = tmp_path / "new" / "atoms.safetensors"
    options = ("--atoms", 12, "--patch", 3, "--regularization", 0.3, "--iterations", 4, "--batch-size", 6)
    printed = learn_by_command(*options, "--limit", 100, "--seed", 5, "--output", path)
    data = load_dataset("digits", "train").take(slice(100))
    expected = learn_dictionary(data, num_atoms=12, patch=3, regularization=0.3, iterations=4, batch_size=6, seed=5)
    assert torch.equal(load_dictionary(path), expected)
    assert load_tensors(path)[1] == {
        "atoms": 12,
        "patch": 3,
        "data": "digits train",
        "images": 100,
        "fingerprint": data.fingerprint(),
        "regularization": 0.3,
        "iterations": 4,
        "batch_size": 6,
        "seed": 5,
        "versions": versions(),
    }
    picture = path.with_suffix(".png")
    assert printed == f"12 atoms of 1 x 3 x 3 in {path}; picture: {picture}\n"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_atoms_learn_nothing_from_images_that_training_holds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same atoms are learned by the command and by the training itself."""
    preset = replace(PRESETS["digits"], iterations=3)
    monkeypatch.setitem(PRESETS, "digits", preset)
    few = ["--dataset", "digits", "--atoms", "12", "--limit", "40", "--hold-out", "8", "--seed", "5"]
    rest, _ = load_dataset("digits", "train").limited(40).hold_out(8, seed=5)
    expected = make_dictionary(replace(preset, atoms=12), rest, seed=5)
    learn_by_command(*few[2:], "--output", tmp_path / "own.safetensors")
    quick = ["--top-t", "6", "--epochs", "1", "--output", str(tmp_path)]
    CliRunner().invoke(app, ["train", *few, *quick], catch_exceptions=False)
    for path in (tmp_path / "own.safetensors", tmp_path / "dictionary.safetensors"):
        assert torch.equal(load_dictionary(path), expected)
        notes = load_tensors(path)[1]
        assert notes["data"] == "digits train without 8 held out"
        assert (notes["images"], notes["fingerprint"]) == (32, rest.fingerprint())


def test_a_training_takes_the_dictionary_that_was_learned_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "digits", replace(PRESETS["digits"], iterations=3))
    few = ["--atoms", "12", "--limit", "40", "--seed", "5"]
    learn_by_command(*few, "--output", tmp_path / "dictionary.safetensors")
    learned = (tmp_path / "dictionary.safetensors").read_bytes()
    quick = ["--dataset", "digits", "--top-t", "6", "--epochs", "1", "--output", str(tmp_path)]
    CliRunner().invoke(app, ["train", *few, *quick], catch_exceptions=False)
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "dictionary.safetensors").read_bytes() == learned


EARLY = {
    "tensors-of-a-model": (
        ["--output", "model.safetensors"],
        "model.safetensors holds weight, expected a tensor named",
    ),
    "another-picture": (["--output", "photo.safetensors"], "photo.safetensors, whose picture would replace photo.png"),
    "too-many-atoms": (["--atoms", 40_000], "num_atoms is 40000"),
    "negative-lambda": (["--regularization", -1], "regularization is -1.0"),
    "nan-lambda": (["--regularization", "nan"], "regularization is nan"),
    "picture-over-atoms": (
        ["--output", "atoms.png"],
        "output is atoms.png, expected a name that ends in .safetensors",
    ),
    "a-folder": (["--output", "folder.safetensors"], "output is folder.safetensors, a folder"),
}


@pytest.mark.parametrize(("arguments", "message"), EARLY.values(), ids=EARLY.keys())
def test_command_refuses_mistakes_before_it_loads_images(
    arguments: list[object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.safetensors").mkdir()
    Path("photo.png").touch()
    save_tensors(Path("model.safetensors"), {"weight": torch.zeros(2)})
    module = importlib.import_module("neuroae.cli.dictionary")
    monkeypatch.setattr(module, "load_dataset", lambda *_: pytest.fail("loaded images"))
    with pytest.raises(ValueError, match=message):
        learn_by_command(*arguments)
