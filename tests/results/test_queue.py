"""The queue of trainings: order, commands, and how it skips, stops and goes on."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuroae.cli import app as neuroae_app
from results.__main__ import app
from results.queue import QUEUE, command, run_training

DATA = {"cifar10": Path("cifar"), "imagenette": Path("nette")}
ATOMS = {"cifar10": Path("atoms.safetensors"), "imagenette": Path("nette.safetensors")}


def options(name: str) -> list[str]:
    (training,) = (each for each in QUEUE if each.name == name)
    words = command(training, Path("runs"), DATA, ATOMS)
    assert words is not None
    return words


def test_defenses_with_other_settings_have_their_published_peak_rates() -> None:
    rates = {name: options(name) for name in ("complete", "no-dropout", "no-top-t", "t10-p0.75")}
    assert "--learning-rate" not in rates["complete"]
    for name, rate in {"no-dropout": "0.01", "no-top-t": "0.01", "t10-p0.75": "0.025"}.items():
        words = rates[name]
        assert words[words.index("--learning-rate") + 1] == rate


@pytest.mark.parametrize("training", QUEUE, ids=lambda training: training.name)
def test_every_training_is_a_command_that_neuroae_accepts(training: object, tmp_path: Path) -> None:
    """It reads all of its options, and ends where the data is missing."""
    data = dict.fromkeys(DATA, tmp_path / "nowhere")
    words = command(training, tmp_path, data, ATOMS)  # type: ignore[arg-type]
    assert words is not None
    without_atoms = [word for word in words[3:] if word not in ("--dictionary", *map(str, ATOMS.values()))]
    result = CliRunner().invoke(neuroae_app, without_atoms)
    assert isinstance(result.exception, FileNotFoundError)


def test_trainings_without_their_data_are_left_out() -> None:
    nothing = {"cifar10": Path("cifar"), "imagenette": None}
    missing = [each.name for each in QUEUE if command(each, Path(), nothing, nothing) is None]
    assert missing == [each.name for each in QUEUE if each.dataset == "imagenette"]
    only_data = [each.name for each in QUEUE if command(each, Path(), DATA, nothing) is None]
    assert only_data == [each.name for each in QUEUE if each.dataset == "imagenette" and each.defense]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the folders of the trainings that a queue starts; each of them finishes at once."""
    names: list[str] = []

    def finish(words: list[str]) -> None:
        folder = Path(words[words.index("--output") + 1])
        names.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "config.json").touch()

    monkeypatch.setattr("results.queue.run_training", finish)
    return names


def queue(folder: Path, *words: str) -> str:
    common = ["queue", "--data-dir", "cifar", "--dictionary", "atoms", "--folder", str(folder), *words]
    return CliRunner().invoke(app, common, catch_exceptions=False).stdout


def test_the_queue_runs_in_order_and_skips_what_is_trained(tmp_path: Path, started: list[str]) -> None:
    queue(tmp_path, "--only", "k-sparse", "--only", "complete")
    assert started == ["complete", "k-sparse"]
    output = queue(tmp_path)
    assert started[2:] == [
        each.name for each in QUEUE if each.dataset == "cifar10" and each.name not in ("complete", "k-sparse")
    ]
    assert "complete is trained already" in output
    assert "imagenette is left out" in output


def test_a_file_stops_the_queue_before_the_next_training(tmp_path: Path, started: list[str]) -> None:
    (tmp_path / "stop").touch()
    assert "stopped before complete" in queue(tmp_path)
    assert not started


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only is 'nothing', expected one of complete"):
        queue(tmp_path, "--only", "nothing")


def test_a_failed_training_ends_the_queue() -> None:
    with pytest.raises(ValueError, match="ended with status 3"):
        run_training([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_terminated_queue_terminates_its_training(tmp_path: Path) -> None:
    """The training writes its number, and waits."""
    script = f"import os, pathlib, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); "
    script += "time.sleep(60)"

    def terminate() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_training([sys.executable, "-c", script])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert signal.getsignal(signal.SIGTERM) is previous
