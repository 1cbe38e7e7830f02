"""The installed package: names, metadata, and what happens where the C++ backend cannot be built or is missing."""

import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import pytest

import neuroae
from neuroae import kernels

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "libneuroae_cpu.so"
FALLBACK = "neuroae runs on its reference backend"

ENCODE_TWICE = """
import torch
from neuroae import SparseEncoder
from neuroae.kernels import backend_name

atoms = torch.nn.functional.normalize(torch.randn(7, 12), dim=1).reshape(7, 3, 2, 2)
images = torch.rand(2, 3, 6, 6)
served, reference = (SparseEncoder(atoms, stride=2, top_t=3, backend=name) for name in ("auto", "reference"))
for seed in (1, 2):
    ours, theirs = (encoder.encode(images, seed=seed) for encoder in (served, reference))
    assert torch.equal(ours.index, theirs.index) and torch.equal(ours.value, theirs.value)
print(backend_name("cpu"))
"""


def run_python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a fresh interpreter outside Triton's interpreter mode."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_installed_version_is_the_package_version() -> None:
    assert importlib.metadata.version("neuroae") == neuroae.__version__


def test_package_is_marked_as_typed() -> None:
    assert importlib.resources.files("neuroae").joinpath("py.typed").is_file()


def test_command_line_entry_point_loads() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="neuroae")
    assert callable(entry.load())


def test_kernels_are_a_part_of_the_package() -> None:
    assert kernels.__name__ == "neuroae.kernels"


def test_backends_import_from_any_folder(tmp_path: Path) -> None:
    modules = [f"neuroae.kernels.{backend}" for backend in ("reference", "cpu", "triton")]
    result = run_python("-c", f"import {', '.join(modules)}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_missing_library_is_said_once_and_the_reference_serves(tmp_path: Path) -> None:
    result = run_python("-c", ENCODE_TWICE, cwd=tmp_path, NEUROAE_CPU_LIBRARY=str(tmp_path / "missing.so"))
    assert result.stdout.strip() == "reference", result.stderr
    assert result.stderr.count(FALLBACK) == 1, result.stderr
    line = next(line for line in result.stderr.splitlines() if FALLBACK in line)
    assert "missing.so" in line


BROKEN_COMPILER = """#!/bin/sh
case "$*" in *api.cpp*) echo "api.cpp:1:1: error: made to fail" >&2; exit 1;; esac
exec c++ "$@"
"""


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        pytest.param({"NEUROAE_SKIP_CPP": "1"}, "left out of the build by NEUROAE_SKIP_CPP=1", id="left-out"),
        pytest.param({"CXX": "/nonexistent"}, "no working C++ compiler was found", id="no-compiler"),
        pytest.param({"CXX": "broken-compiler"}, "api.cpp:1:1: error: made to fail", id="compile-error"),
    ],
)
def test_failed_build_leaves_its_reason_in_one_line(variables: dict[str, str], reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "neuroae/kernels/cpu"
    folder.mkdir(parents=True)
    (folder / LIBRARY).write_bytes(b"left by an earlier build")
    compiler = tmp_path / "broken-compiler"
    compiler.write_text(BROKEN_COMPILER)
    compiler.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = run_python("setup.py", "build_library", f"--build-lib={tmp_path}", cwd=ROOT, **variables, PATH=path)
    assert result.returncode == 0, result.stderr
    assert [file.name for file in folder.iterdir()] == ["build-error.txt"]
    (line,) = (folder / "build-error.txt").read_text().splitlines()
    assert reason in line
