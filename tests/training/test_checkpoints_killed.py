"""Training processes that are killed, in steps and in writes, and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

import killed_run
from neuroae.training import Run, train_plain
from neuroae.utils.files import load_tensors


def run_until(folder: Path, seconds: float) -> int:
    return subprocess.run([sys.executable, killed_run.__file__, str(folder), str(seconds)]).returncode


def test_a_kill_at_any_moment_costs_nothing(tmp_path: Path) -> None:
    """Every step writes a checkpoint, so kills happen in steps and in writes; each run gets a little further."""
    checkpoint = tmp_path / "killed" / "checkpoint-classifier.safetensors"
    steps = []
    for seconds in (0.02, 0.04, 0.06):
        assert run_until(tmp_path / "killed", seconds) == -signal.SIGALRM
        position = load_tensors(checkpoint)[1]["position"]
        steps.append((position["epoch"], position["step"]))
    assert steps == sorted(set(steps))
    for name in ("killed", "whole"):
        killed_run.main(tmp_path / name)
    first, second = (load_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {".lock", checkpoint.name, "weights.safetensors"}


KILLED_BEFORE_REPLACE = """
import os, signal, sys
from pathlib import Path
import killed_run

calls = 0
def killed(*_):
    global calls
    calls += 1
    if calls > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*_)

replace, os.replace = os.replace, killed
killed_run.main(Path(sys.argv[1]))
"""


def test_sigkill_between_a_written_file_and_its_place_costs_that_file_alone(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(Path(killed_run.__file__).parent)}
    for checkpoints in (0, 5):
        command = [sys.executable, "-c", KILLED_BEFORE_REPLACE, str(folder), str(checkpoints)]
        assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
        left = {path.name for path in folder.iterdir()}
        (temporary,) = [name for name in left if name.startswith(".checkpoint")]
        assert left - {temporary} == {".lock"} | ({"checkpoint-classifier.safetensors"} if checkpoints else set())
        load_tensors(folder / temporary)
    model = killed_run.untrained()
    torch.manual_seed(99)
    train_plain(model, killed_run.random_data(2000), killed_run.SETTINGS, Run(folder))
    uninterrupted = killed_run.untrained()
    torch.manual_seed(7)
    train_plain(uninterrupted, killed_run.random_data(2000), killed_run.SETTINGS)
    assert all(torch.equal(tensor, uninterrupted.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert {path.name for path in folder.iterdir()} == {".lock", "checkpoint-classifier.safetensors"}
