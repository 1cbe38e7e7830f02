"""How an experiment becomes a command line."""

from collections.abc import Callable

import typer

from neuroae.utils.devices import keep_freed_memory


def run(main: Callable[..., None]) -> None:
    """Runs an experiment's function with the options of the command line, in memory kept as ``neuroae`` keeps it."""
    keep_freed_memory()
    typer.run(main)
