"""Loading of the C++ library: a library that does not match the package is refused before it computes."""

import ctypes
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroae.kernels import BackendMissing

# The package has a function of the module's name.
loading = importlib.import_module("neuroae.kernels.cpu.library")


@pytest.fixture(autouse=True)
def fresh_library() -> Iterator[None]:
    loading.library.cache_clear()
    yield
    loading.library.cache_clear()


@pytest.mark.parametrize("name", ["AVX2", "sse"])
def test_an_instruction_set_that_does_not_exist_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROAE_CPU_ISA", name)
    expected = "plain, avx2, avx512, avx512_bf16"
    with pytest.raises(ValueError, match=f"NEUROAE_CPU_ISA is '{name}', expected one of {expected}"):
        loading.library()


def longer(last: Any) -> Any:
    class Longer(ctypes.Structure):
        _fields_ = [*last._fields_, ("more", ctypes.c_int64)]

    return Longer


@pytest.mark.parametrize("change", ["another size", "one more", "one less"])
def test_a_library_with_other_structures_is_refused(
    backend: Any, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when NEUROAE_CPU_LIBRARY names a library of another version."""
    *others, last = loading.STRUCTURES
    changed = {"another size": (*others, longer(last)), "one more": (*others, last, last), "one less": (*others,)}
    monkeypatch.setattr(loading, "STRUCTURES", changed[change])
    with pytest.raises(BackendMissing, match=r"is of another version: build the package again"):
        loading.library()


def test_a_library_without_a_function_is_refused(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading.ARGUMENTS, "later", ())
    with pytest.raises(BackendMissing, match=r"is of another version: build the package again"):
        loading.library()


@pytest.mark.parametrize("name", ["philox.h", "api.cpp"])
def test_a_library_older_than_its_sources_is_refused(
    backend: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ``git pull`` in an editable installation."""
    shutil.copytree(loading.FOLDER / "src", tmp_path / "src")
    library = loading.library_path()
    monkeypatch.setattr(loading, "library_path", lambda: library)
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    assert loading.library()
    loading.library.cache_clear()
    with (tmp_path / "src" / name).open("a") as file:
        file.write("// changed")
    with pytest.raises(BackendMissing, match=r"is of another version: build the package again"):
        loading.library()


def test_a_library_without_sources_beside_it_loads(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = loading.library_path()
    monkeypatch.setattr(loading, "library_path", lambda: library)
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    assert loading.library()
