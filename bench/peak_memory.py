"""Prints the peak memory of one EOT gradient, in MiB: ``python -m bench.peak_memory REALIZATIONS``.

Each measurement has its own process, since a process's peak memory never decreases.
"""

import sys
from pathlib import Path

import torch

from bench.settings import CIFAR10, images, ours
from neuroae.attacks.eot import eot_gradient


def peak_mebibytes() -> float:
    """Returns this process's peak resident memory in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(realizations: int) -> None:
    x = images(CIFAR10)
    ids = torch.arange(len(x))
    eot_gradient(ours(CIFAR10), x, ids % 10, realizations=realizations, seed=0, image_ids=ids)
    print(peak_mebibytes())


if __name__ == "__main__":
    main(int(sys.argv[1]))
