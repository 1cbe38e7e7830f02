"""Several processes started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import parallel_resume
import parallel_run
from neuroae import Defense
from neuroae.data import load_dataset
from neuroae.models import load_pretrained
from neuroae.training import TrainingSettings
from neuroae.training.loop import score
from neuroae.training.methods import Supervised
from neuroae.utils.files import load_tensors

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run(*arguments: object) -> str:
    """Runs Python on the arguments with one thread for each process, and returns its output."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    finished = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("images", "method"),
    [
        pytest.param(parallel_run.STEPS // 2 * parallel_run.BATCH, "supervised", id="equal shares"),
        pytest.param(17 * parallel_run.BATCH + 1, "supervised", id="one image left for two processes"),
        pytest.param(3 * parallel_run.BATCH + 1, "r-fgsm-at", id="from random points around the images"),
    ],
)
def test_two_processes_learn_what_one_does(tmp_path: Path, images: int, method: str) -> None:
    parallel_run.main(tmp_path / "one.safetensors", images, method)
    run("-m", *TORCHRUN, parallel_run.__file__, tmp_path / "two.safetensors", images, method)
    (one, alone), (two, shared) = (load_tensors(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert (alone["processes"], shared["processes"]) == (1, 2)
    untrained = parallel_run.untrained(images)[0].state_dict()
    assert max(float((one[name] - tensor).abs().max()) for name, tensor in untrained.items()) > 1e-2
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4, msg=name)
    assert shared["losses"] == pytest.approx(alone["losses"], abs=1e-4)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_go_on_bit_for_bit(tmp_path: Path, processes: int) -> None:
    """It stops in mid-epoch, when processes' running statistics differ. Sums of three depend on their order."""
    starter = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    run("-m", *starter, parallel_resume.__file__, tmp_path)
    (uninterrupted, notes), (resumed, _) = (
        load_tensors(tmp_path / f"{name}.safetensors") for name in ("uninterrupted", "stopped")
    )
    assert notes["processes"] == processes
    for name, tensor in uninterrupted.items():
        assert torch.equal(resumed[name], tensor), name


LEFT_THREADS = """
import os
from pathlib import Path
import torch
from neuroae.utils import distributed


def step():
    model = distributed.parallelize(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()

with distributed.group(torch.device("cpu")):
    step()
print([path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed where Linux has them")
def test_a_group_leaves_no_threads(tmp_path: Path) -> None:
    """A thread that outlives the group may abort the process at its end."""
    script = tmp_path / "script.py"
    script.write_text(LEFT_THREADS)
    printed = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", script)
    assert "python" in printed
    assert "gloo" not in printed


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Returns the command of a training in two processes; its last argument is the model's folder."""
    few = ["--atoms", 12, "--top-t", 6, "--epochs", 1, "--limit", 48, "--hold-out", 8, "--batch-size", 8]
    folder = tmp_path_factory.mktemp("trained") / "model"
    command = ["-m", *TORCHRUN, "-m", "neuroae", "train", "--dataset", "digits", *few, "--output", folder]
    assert run(*command).count("| clean") == 1
    return command


def test_torchrun_trains_a_model_and_writes_it_once(command: list[object]) -> None:
    _, notes = load_pretrained(str(command[-1]))
    assert notes["epochs"][0]["accuracy"] is not None
    assert "is trained already" in run(*command)


def test_several_processes_validate_the_model_that_is_saved(command: list[object]) -> None:
    """Each process has its own statistics of batch normalization, from its own images."""
    model, notes = load_pretrained(str(command[-1]))
    assert isinstance(model, Defense)
    _, held_out = load_dataset("digits", "train").limited(48).hold_out(8, seed=0)
    expected = score(Supervised(model), held_out, TrainingSettings(), "defense", epoch=0)
    assert notes["epochs"][0]["validation_loss"] == pytest.approx(expected.mean_loss, rel=1e-5)
    assert notes["epochs"][0]["validation_accuracy"] == expected.accuracy
