"""What this machine can do at best: its matrix rates and its copy bandwidth, measured, not taken from a datasheet."""

import functools
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench.measure import Action
from bench.precisions import FAST_BFLOAT16

REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """Operations a second (a multiply-add is two) and bytes a second read plus written.

    The rate of bfloat16 is not a number where the processor has no instructions for it.
    """

    float32: float
    bfloat16: float
    bandwidth: float

    def floor(self, operations: float, moved: float, rate: str) -> float:
        """Seconds that the operations or the bytes take at least, whichever is more."""
        return max(operations / getattr(self, rate), moved / self.bandwidth)


def best(action: Action) -> float:
    action()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matrix_rate(dtype: torch.dtype) -> float:
    """The better of a square matrix product and a wide 3 x 3 convolution: it depends on the CPU."""
    side = 1024
    a = torch.randn(side, side).to(dtype)
    x = torch.randn(4, 256, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    product = 2 * side**3 / best(lambda: a @ a)
    convolution = 2 * 4 * 30 * 30 * 256 * 256 * 9 / best(lambda: F.conv2d(x, weight))
    return max(product, convolution)


@functools.cache
def machine(threads: int) -> Machine:
    """Measured once a run, at the number of threads that is set when it is asked for."""
    assert threads == torch.get_num_threads()
    source = torch.ones(64 * 2**20)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source))
    bfloat16 = matrix_rate(torch.bfloat16) if FAST_BFLOAT16 else math.nan
    return Machine(matrix_rate(torch.float32), bfloat16, bandwidth)
