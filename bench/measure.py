"""Timing of alternatives in turn, so that a slower phase of the machine affects all of them equally."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Action = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How many times faster we are than the alternative: the median over rounds, the least and the greatest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 1 else 3
        return f"{self.median:.{digits}f}x ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True)
class Part:
    """An action that does one of ``shares`` equal shares of the work. Its time is multiplied by ``shares``."""

    action: Action
    shares: float

    def __call__(self) -> object:
        return self.action()


@dataclass
class Limit:
    """How long the rounds of one comparison may take, beyond the first three. None means no limit."""

    seconds: float | None = None


LIMIT = Limit()
LEAST_ROUNDS, UNCOUNTED = 3, 2


def interleaved(actions: dict[str, Action], rounds: int) -> dict[str, list[float]]:
    """Times the actions in turn, A B C A B C ..., and returns the seconds of each action in all rounds.

    Before the counted rounds there are two uncounted ones, or one if the actions are long. Short actions need two:
    on a virtual machine, new memory is several times slower at first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    started, uncounted = time.perf_counter(), 0
    while uncounted < min(rounds, UNCOUNTED) and not (uncounted and exceeds_limit(started, uncounted + 1)):
        for action in actions.values():
            action()
        uncounted += 1
    started = time.perf_counter()
    for count in range(rounds):
        if count >= LEAST_ROUNDS and exceeds_limit(started, 1 + 1 / count):
            break
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            shares = action.shares if isinstance(action, Part) else 1
            seconds[name].append(shares * (time.perf_counter() - start))
    return seconds


def exceeds_limit(started: float, factor: float) -> bool:
    """Returns whether ``factor`` times the time since ``started`` exceeds the limit."""
    return LIMIT.seconds is not None and factor * (time.perf_counter() - started) > LIMIT.seconds


def ratio(alternative: list[float], ours: list[float]) -> Ratio:
    pairs = sorted(theirs / mine for theirs, mine in zip(alternative, ours, strict=True))
    return Ratio(statistics.median(pairs), pairs[0], pairs[-1])
