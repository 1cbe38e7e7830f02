"""How pictures are drawn: in matplotlib's default style, and never at the price of the work that they show."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style


@contextmanager
def default_style() -> Iterator[None]:
    """Matplotlib's own, whatever the user's configuration says, which may ask for LaTeX or fonts that are missing."""
    with matplotlib.style.context("default"):
        yield


@contextmanager
def dispensable(name: object) -> Iterator[None]:
    """Turns the failure of a picture, whose name or file this is, into a warning."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"{name} could not be drawn: {error!r}", stacklevel=3)
