"""Timing: alternatives in turn within one run, so that a drifting machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Action = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the alternative: median over rounds, with the least and the greatest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 1 else 3
        return f"{self.median:.{digits}f}x ({self.low:.{digits}f}-{self.high:.{digits}f})"


def interleaved(actions: dict[str, Action], rounds: int) -> dict[str, list[float]]:
    """Seconds of every action in every round, A B C A B C ..., after as many uncounted rounds, 10 at most.

    One uncounted call is too few: on a virtual machine, memory that was never used is several times slower at first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for counted in range(-min(rounds, 10), rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            elapsed = time.perf_counter() - start
            if counted >= 0:
                seconds[name].append(elapsed)
    return seconds


def ratio(alternative: list[float], ours: list[float]) -> Ratio:
    pairs = sorted(theirs / own for theirs, own in zip(alternative, ours, strict=True))
    return Ratio(statistics.median(pairs), pairs[0], pairs[-1])
