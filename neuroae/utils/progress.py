"""Progress bars of long work."""

import sys
from typing import Any

from tqdm.auto import tqdm

from . import distributed

SECONDS_BETWEEN_LINES = 30.0


def progress_bar(**settings: Any) -> tqdm:
    """A bar for people who watch, and a line now and then where the output goes to a file; the first process only."""
    interval = 0.1 if is_terminal(sys.stderr) else SECONDS_BETWEEN_LINES
    return tqdm(mininterval=interval, disable=not (can_say() and distributed.is_first()), **settings)


def is_terminal(stream: object) -> bool:
    """Whether people watch; programs put other objects in the place of the standard error, which may only write."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # of a closed file
        return False


def can_say() -> bool:
    """Whether there is a standard error: programs without a console have none, or close it."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def say(text: str) -> None:
    """A line to the standard error, where there is one."""
    if can_say():  # print would take the standard output for None
        print(text, file=sys.stderr)
