"""The command line, ``neuroae VERB``, with one file for each verb."""

import sys
from typing import Annotated

import typer

from ..utils.devices import keep_freed_memory
from ..utils.versions import __version__
from .attack import attack
from .demo import demo
from .dictionary import dictionary
from .report import report
from .train import train

app = typer.Typer(
    name="neuroae",
    help="Judge adversarial defenses that are random or hide their gradients; train one of them, and break it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(is_requested: bool) -> None:
    """Prints the version and ends the command."""
    if is_requested:
        print(f"neuroae {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


for verb in (demo, dictionary, train, attack, report):
    app.command()(verb)


def main() -> None:
    """Runs the command line. For an error in the user's input it prints one line instead of a traceback."""
    keep_freed_memory()
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"neuroae: {error}")
