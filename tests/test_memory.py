"""Freed memory stays with the process where that was asked for."""

import platform
import subprocess
import sys

import pytest

MEBIBYTE = 2**20
SCRIPT = """
import sys
from pathlib import Path
import torch
from neuroae.memory import keep_freed_memory

def resident():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

kept = sys.argv[1] == "kept" and keep_freed_memory()
before = resident()
block = torch.ones(256 * 2**20, dtype=torch.uint8)
del block
print(int(kept), resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_a_freed_block_stays_with_the_process() -> None:
    kept, default = (
        subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True).stdout.split()
        for how in ("kept", "default")
    )
    assert kept[0] == "1"
    assert int(kept[1]) > 200 * MEBIBYTE
    assert int(default[1]) < 50 * MEBIBYTE
