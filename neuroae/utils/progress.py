"""Progress bars of long work, and notices on the standard error."""

import sys
from typing import Any

from tqdm.auto import tqdm

from . import distributed

SECONDS_BETWEEN_LINES = 30.0


def progress_bar(**settings: Any) -> tqdm:
    """Returns a progress bar, shown by the first process only.

    On a terminal it moves; otherwise, as in a file, a line is written every 30 seconds.

    Args:
        **settings: Arguments of ``tqdm``.
    """
    interval = 0.1 if is_terminal(sys.stderr) else SECONDS_BETWEEN_LINES
    return tqdm(mininterval=interval, disable=not (has_stderr() and distributed.is_first()), **settings)


def is_terminal(stream: object) -> bool:
    """Returns whether the stream is a terminal. A program's replacement for the stream may have no ``isatty``."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # ValueError: the stream is closed
        return False


def has_stderr() -> bool:
    """Returns whether there is an open standard error; programs without a console have none."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def print_notice(text: str) -> None:
    """Prints a line to the standard error if there is one."""
    if has_stderr():  # print(file=None) would write to the standard output
        print(text, file=sys.stderr)
