"""Loading of the C++ library: what does not belong to it is refused before anything is computed."""

import ctypes
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from neuroae.kernels import EngineMissing

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


def test_a_library_with_other_structures_is_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older build, whose functions have the same names."""

    class Longer(ctypes.Structure):
        _fields_ = [*loading.Maps._fields_, ("more", ctypes.c_int64)]

    monkeypatch.setattr(loading, "STRUCTURES", (*loading.STRUCTURES[:-2], Longer, loading.STRUCTURES[-1]))
    with pytest.raises(EngineMissing, match=r"is of another version: build the package again"):
        loading.library()
