"""``neuroae report``: what an evaluation found, printed and as files."""

from pathlib import Path
from typing import Annotated

import typer

from ..reports.page import PAGE, write_report


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `neuroae attack` wrote; it need not be done.")],
) -> None:
    """Print the table and the sanity report of an evaluation, and write them into its folder.

    They are in results.md, results.csv, summary.json and sanity.json, and with pictures in report.html.
    """
    print(write_report(folder))
    print(f"\npage: {folder / PAGE}")
