"""The folder of ``neuroae train``: it belongs to one training from the start, and says what made its weights."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from neuroae.cli import app
from neuroae.models import load_pretrained, save_pretrained
from neuroae.models.presets import PRESETS
from neuroae.utils.files import claimed, load_json, save_json
from neuroae.utils.versions import versions

SMALL = ["--atoms", 12, "--top-t", 6]
COMMANDS = {
    "supervised": SMALL,
    "unsupervised": ["--method", "unsupervised", "--decoder-epochs", 1, *SMALL],
    "plain": ["--method", "plain"],
    "another-seed": [*SMALL, "--seed", 1],
}


class Killed(Exception):
    pass


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training of the command, whose dictionaries take three minibatches."""
    monkeypatch.setitem(PRESETS, "digits", replace(PRESETS["digits"], iterations=3))
    return importlib.import_module("neuroae.cli.training_plan")


def train(folder: Path, command: str) -> str:
    """Returns what the command prints."""
    common = ["train", "--dataset", "digits", "--limit", 40, "--hold-out", 8, "--epochs", 1, "--output", folder]
    words = [str(word) for word in (*common, *COMMANDS[command])]
    return CliRunner().invoke(app, words, catch_exceptions=False).stdout


def kill(folder: Path, command: str, module: ModuleType, step: str) -> None:
    """Runs a command that is stopped when it calls this function of the module."""

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(Killed):
            train(folder, command)


@pytest.mark.parametrize("step", ["load_or_learn_atoms", "learn", "finish"])
@pytest.mark.parametrize("other", ["unsupervised", "plain", "another-seed"])
def test_another_command_is_refused_wherever_the_first_was_stopped(
    tmp_path: Path, module: ModuleType, step: str, other: str
) -> None:
    kill(tmp_path, "supervised", module, step)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"(run\.json|checkpoint-defense\.safetensors) belongs to another run: "):
        train(tmp_path, other)
    assert {path.name for path in tmp_path.iterdir()} == before
    train(tmp_path, "supervised")
    assert load_pretrained(tmp_path)[1]["run"]["method"] == "supervised"


def test_a_folder_of_an_earlier_version_goes_on_and_is_guarded_by_its_checkpoints(
    tmp_path: Path, module: ModuleType
) -> None:
    kill(tmp_path, "supervised", module, "finish")
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-defense\.safetensors belongs to another run: method is"):
        train(tmp_path, "plain")
    assert not (tmp_path / "run.json").exists()
    train(tmp_path, "supervised")
    notes = load_pretrained(tmp_path)[1]
    assert len(notes["epochs"]) == 1
    assert "begun by an earlier version" in notes["versions"]["neuroae"]
    assert notes["continued_with"] == [versions()]


def test_atoms_that_were_given_and_atoms_that_are_learned_are_two_trainings(
    tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is refused before the first checkpoint, and when it is finished."""
    kill(tmp_path / "first", "supervised", module, "learn")
    monkeypatch.setitem(COMMANDS, "given", [*SMALL, "--dictionary", tmp_path / "first/dictionary.safetensors"])
    kill(tmp_path / "second", "given", module, "learn")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"run\.json belongs to another run: dictionary is"):
            train(tmp_path / "second", "supervised")
        train(tmp_path / "second", "given")


def test_learned_atoms_are_those_of_the_images_whatever_their_folder_is_called(
    tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(tmp_path, "supervised", module, "learn")
    command = importlib.import_module("neuroae.cli.train")
    load = command.load_dataset
    monkeypatch.setattr(command, "load_dataset", lambda *arguments: replace(load(*arguments), name="renamed"))
    train(tmp_path, "supervised")
    assert load_pretrained(tmp_path)[1]["run"]["images"] == 32


def test_a_model_that_was_saved_in_the_place_of_the_trained_one_is_left_alone(
    tmp_path: Path, module: ModuleType
) -> None:
    train(tmp_path, "plain")
    save_pretrained(load_pretrained(tmp_path)[0], tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    assert train(tmp_path, "plain").strip() == f"{tmp_path} is trained already"
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_folder_is_claimed_while_atoms_are_learned(
    tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claimed(tmp_path), pytest.raises(BlockingIOError, match="another run is at work"):
        train(tmp_path, "supervised")
    assert not (tmp_path / "dictionary.safetensors").exists()


def test_versions_are_those_of_the_start_and_of_every_other_that_went_on(
    tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(tmp_path, "plain", module, "learn")
    current, later = versions(), versions() | {"commit": "later"}
    monkeypatch.setattr("neuroae.utils.versions.versions", lambda: later)
    with pytest.warns(UserWarning, match=r"was begun with other versions: versions\.commit is .* 'later' here"):
        train(tmp_path, "plain")
    notes = load_pretrained(tmp_path)[1]
    assert (notes["versions"], notes["continued_with"]) == (current, [later])
    card = " ".join((tmp_path / "README.md").read_text().split())
    assert f"| commit | {current['commit']} |" in card
    assert "## Continued with" in card


@pytest.mark.parametrize("content", [[], {"asked": {}}, {"asked": 1, "versions": []}])
def test_a_damaged_note_of_what_was_asked_is_refused_by_name(
    tmp_path: Path, module: ModuleType, content: object
) -> None:
    save_json(tmp_path / "run.json", content)
    with pytest.raises(ValueError, match=r"run\.json is not what `neuroae train` writes"):
        train(tmp_path, "plain")
    assert load_json(tmp_path / "run.json") == content


def test_what_killed_writes_left_is_removed(tmp_path: Path, module: ModuleType) -> None:
    names = ("model.safetensors", "config.json", "README.md", "epochs.csv", "curves.png", "dictionary.safetensors")
    left = [tmp_path / f".{Path(name).stem}-abcd1234{Path(name).suffix}" for name in names]
    for path in left:
        path.touch()
    train(tmp_path, "plain")
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "epochs.csv", "curves.png"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, module: ModuleType, name: str) -> None:
    (tmp_path / name).write_text("mine")
    message = rf"{tmp_path} holds {name} and no run\.json, which would say what it belongs to"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, "plain")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


@pytest.mark.parametrize("verb", ["train", "attack"])
@pytest.mark.parametrize("output", ["", " "], ids=["empty", "blank"])
def test_an_empty_output_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["cifar10"] if verb == "attack" else []
    result = CliRunner().invoke(app, [verb, *model, "--dataset", "digits", "--output", output])
    assert result.exit_code == 2
    assert "it is empty, expected a folder" in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scores", [[{}], [3], 3, [{"accuracy": "high", "images": 1, "data": "some"}]], ids=str)
def test_scores_of_the_wrong_types_are_named(tmp_path: Path, module: ModuleType, scores: object) -> None:
    with pytest.raises(ValueError, match=r"config\.json holds scores that cannot be read: "):
        module.describe_score(tmp_path / "config.json", {"scores": scores})
