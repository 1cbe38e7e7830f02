"""Precisions: refusals, and the warning where bfloat16 is slow."""

import warnings
from pathlib import Path

import pytest
import torch

from neuroae.utils import contexts
from neuroae.utils.contexts import autocast
from neuroae.utils.devices import has_fast_bfloat16

CPU = torch.device("cpu")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'float16', expected one of float32, bfloat16"):
        autocast("float16", CPU)


@pytest.mark.parametrize(
    ("precision", "fast", "warns"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)],
    ids=["slow bfloat16", "fast bfloat16", "float32"],
)
def test_slow_bfloat16_is_said(monkeypatch: pytest.MonkeyPatch, precision: str, fast: bool, warns: bool) -> None:
    monkeypatch.setattr(contexts, "has_fast_bfloat16", lambda _: fast)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autocast(precision, CPU)
    assert [str(warning.message) for warning in caught] == ([contexts.SLOW_BFLOAT16] if warns else [])


def test_a_processor_with_avx512_has_fast_bfloat16() -> None:
    """oneDNN needs AVX-512. The test reads from /proc/cpuinfo whether the processor has it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("no x86 processor under Linux")
    expected = {"avx512bw", "avx512vl", "avx512dq"}
    assert has_fast_bfloat16(CPU) == (expected <= set(flags.split()))
