"""Forked processes: a computation that would wait forever is an error, and all others work."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import os, sys
import torch
from neuroae import SparseEncoder
from neuroae.kernels import BackendMissing, load_backend

try:
    load_backend("cpu")
except BackendMissing:
    print("no backend")
    sys.exit()
atoms = torch.eye(48).reshape(48, 3, 4, 4)
encoder = SparseEncoder(atoms, top_t=10, backend="cpu")
images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))

def encode(threads):
    torch.set_num_threads(threads)
    return encoder.encode(images, seed=1).value.sum().item()

before, inside = sys.argv[1].split(",")
if before != "nothing":
    encode(int(before))
if os.fork() == 0:
    try:
        result = encode(int(inside))
        print("refused afterwards" if encode(1) != result else "computed", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
        print("computed" if encode(1) else "", flush=True)
    os._exit(0)
os.wait()
print("parent computed" if encode(2) else "", flush=True)
"""


def forked(before: str, inside: int) -> list[str]:
    """Returns what child and parent print.

    Args:
        before: Threads with which the parent computes before the fork, or "nothing".
        inside: Threads of the child.
    """
    command = [sys.executable, "-c", PROGRAM, f"{before},{inside}"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
    if lines == ["no backend"]:
        pytest.skip("there is no C++ backend")
    return lines


def test_computing_on_threads_that_a_fork_lost_is_an_error() -> None:
    message, *others = forked("2", 2)
    assert message.startswith("encode runs in a forked process, whose parent computed in parallel: ")
    assert "torch.multiprocessing.get_context('spawn')" in message
    assert others == ["computed", "parent computed"]


@pytest.mark.parametrize(("before", "inside"), [("nothing", 2), ("1", 2), ("2", 1)])
def test_other_forks_compute(before: str, inside: int) -> None:
    assert forked(before, inside) == ["computed", "parent computed"]
