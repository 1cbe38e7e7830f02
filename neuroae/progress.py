"""Progress bars of long work."""

import sys
from typing import Any

from tqdm.auto import tqdm

from . import processes

SECONDS_BETWEEN_LINES = 30.0


def progress_bar(**settings: Any) -> tqdm:
    """A bar for people who watch, and a line now and then where the output goes to a file; the first process only."""
    watched = sys.stderr.isatty()
    return tqdm(mininterval=0.1 if watched else SECONDS_BETWEEN_LINES, disable=not processes.is_first(), **settings)
