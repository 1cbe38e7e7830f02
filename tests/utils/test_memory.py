"""``keep_freed_memory``: freed memory stays with the process, in large pages."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MEBIBYTE = 2**20
SCRIPT = """
import sys
from pathlib import Path
import torch
from neuroae.utils.devices import keep_freed_memory

def resident():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

kept = sys.argv[1] == "kept" and keep_freed_memory()
before = resident()
block = torch.ones(256 * 2**20, dtype=torch.uint8)
del block
print(int(kept), resident() - before)
"""


PAGES = """
import sys
from pathlib import Path
import torch
from neuroae.utils.devices import keep_freed_memory

if sys.argv[1] != "default":
    keep_freed_memory()
block = torch.ones(256 * 2**20, dtype=torch.uint8)
middle = block.data_ptr() + block.numel() // 2
for line in Path("/proc/self/smaps").read_text().splitlines():
    field = line.split()[0]
    if "-" in field:
        first, end = (int(address, 16) for address in field.split("-"))
    if field == "VmFlags:" and first <= middle < end:
        print("hg" in line.split())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")


@glibc
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="needs transparent huge pages")
@pytest.mark.parametrize(("setting", "expected"), [("kept", "True"), ("default", "False"), ("limited", "False")])
def test_large_pages_are_asked_for_under_what_is_kept(setting: str, expected: str) -> None:
    """Not under a limit on addresses, which would count reserved ones."""

    def limit() -> None:
        if setting == "limited":
            resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40))

    command = [sys.executable, "-c", PAGES, setting]
    process = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=limit)
    assert process.stdout.split() == [expected]


@glibc
def test_a_freed_block_stays_with_the_process() -> None:
    reserved, default = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT, setting], check=True, capture_output=True, text=True
        ).stdout.split()
        for setting in ("kept", "default")
    )
    assert reserved[0] == "1"
    assert int(reserved[1]) > 200 * MEBIBYTE
    assert int(default[1]) < 50 * MEBIBYTE
