"""Matrix rates and copy bandwidth of this machine, measured."""

import functools
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench.measure import Action
from bench.settings import FAST_BFLOAT16

REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """Rates in operations per second (a multiply-add is two), bandwidth in bytes read plus written per second.

    The rate of bfloat16 is NaN where the processor has no instructions for it.
    """

    float32: float
    bfloat16: float
    bandwidth: float

    def floor(self, operations: float, moved: float, rate: str) -> float:
        """Returns the least seconds for the operations or the bytes ``moved``, whichever take longer."""
        return max(operations / getattr(self, rate), moved / self.bandwidth)


def least_seconds(action: Action) -> float:
    """Returns the shortest of several runs, after one that is not timed."""
    action()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matrix_rate(dtype: torch.dtype) -> float:
    """Returns the rate of a square matrix product or of a wide 3 x 3 convolution, whichever is faster on this CPU."""
    side = 1024
    a = torch.randn(side, side).to(dtype)
    x = torch.randn(4, 256, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    product = 2 * side**3 / least_seconds(lambda: a @ a)
    convolution = 2 * 4 * 30 * 30 * 256 * 256 * 9 / least_seconds(lambda: F.conv2d(x, weight))
    return max(product, convolution)


@functools.cache
def machine(threads: int) -> Machine:
    """Measures this machine, once for each number of threads, which must be the current one."""
    assert threads == torch.get_num_threads()
    source = torch.ones(64 * 2**20)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / least_seconds(lambda: target.copy_(source))
    bfloat16 = matrix_rate(torch.bfloat16) if FAST_BFLOAT16 else math.nan
    return Machine(matrix_rate(torch.float32), bfloat16, bandwidth)
