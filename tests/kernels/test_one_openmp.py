"""The C++ backend uses PyTorch's OpenMP runtime: a second one would compete with it for the cores."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ENCODE_ON_TWO_THREADS = """
from pathlib import Path
import torch
from neuroae import SparseEncoder
from neuroae.kernels import backend_name

torch.set_num_threads(2)
atoms = torch.nn.functional.normalize(torch.randn(40, 48), dim=1).reshape(40, 3, 4, 4)
SparseEncoder(atoms, stride=2, top_t=10).encode(torch.rand(8, 3, 32, 32))
print(backend_name("cpu"))
print(Path("/proc/self/maps").read_text())
"""
OPENMP_RUNTIME = re.compile(r"/\S*/lib(?:gomp|iomp5|omp)[-.]\S*")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.usefixtures("backend")
def test_one_openmp_runtime_serves_pytorch_and_the_backend(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", ENCODE_ON_TWO_THREADS]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    name, maps = result.stdout.split("\n", 1)
    assert name == "cpu"
    runtimes = set(OPENMP_RUNTIME.findall(maps))
    assert len(runtimes) == 1, runtimes
