"""The versions that a result records."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from neuroae.kernels import BackendMissing
from neuroae.kernels.cpu.library import library_path
from neuroae.utils import versions as module
from neuroae.utils.versions import git_commit, versions


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", "-C", str(folder), *author, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_package_and_not_of_a_repository_around_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "theirs.py").touch()
    assert git_commit(package) is None
    git(tmp_path, "init")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-m", "theirs")
    assert git_commit(package) is None
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "ours")
    commit = git_commit(package)
    assert commit is not None
    assert len(commit) == 40
    (package / "__init__.py").write_text("changed = True")
    assert git_commit(package) == f"{commit}-dirty"


def test_the_backend_is_told_by_its_instructions_and_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.cpu, "instruction_set", lambda: "plain")
    monkeypatch.setattr(module.cpu, "digest", lambda: "0123456789abcdef")
    assert versions()["C++ engine"] == "plain, 0123456789ab"


def test_the_digest_is_of_the_file_that_is_loaded(backend: ModuleType) -> None:
    assert module.cpu.digest() == hashlib.sha256(library_path().read_bytes()).hexdigest()


def test_without_the_backend_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise BackendMissing("not built")

    monkeypatch.setattr(module.cpu, "instruction_set", missing)
    assert versions()["C++ engine"] == "missing"


def test_an_installed_copy_says_that_it_does_not_know_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "git_commit", lambda _: None)
    assert versions()["commit"] == "unknown, installed without its repository"


def test_a_gpu_and_the_compiler_of_its_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert {"GPU": "some GPU", "triton": "missing"}.items() <= versions().items()
