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


@dataclass(frozen=True)
class Part:
    """An action that does one of so many equal shares of the work: its time is multiplied."""

    action: Action
    shares: float

    def __call__(self) -> object:
        return self.action()


@dataclass
class Limit:
    """How long the rounds of one comparison may take; three are made in any case. None asks for all rounds."""

    seconds: float | None = None


LIMIT = Limit()
LEAST_ROUNDS, UNCOUNTED = 3, 2


def interleaved(actions: dict[str, Action], rounds: int) -> dict[str, list[float]]:
    """Seconds of every action in every round, A B C A B C ..., after two uncounted rounds, or one of long actions.

    One uncounted call is too few for short ones: on a virtual machine, memory that was never used is several times
    slower at first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    started, uncounted = time.perf_counter(), 0
    while uncounted < min(rounds, UNCOUNTED) and not (uncounted and spent(started, uncounted + 1)):
        for action in actions.values():
            action()
        uncounted += 1
    started = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and spent(started, 1 + 1 / done):
            break
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            shares = action.shares if isinstance(action, Part) else 1
            seconds[name].append(shares * (time.perf_counter() - start))
    return seconds


def spent(started: float, factor: float) -> bool:
    """Whether the limit would be passed when ``factor`` times as long as since ``started`` is over."""
    return LIMIT.seconds is not None and factor * (time.perf_counter() - started) > LIMIT.seconds


def ratio(alternative: list[float], ours: list[float]) -> Ratio:
    pairs = sorted(theirs / own for theirs, own in zip(alternative, ours, strict=True))
    return Ratio(statistics.median(pairs), pairs[0], pairs[-1])
