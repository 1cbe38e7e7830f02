"""``neuroae report``: prints what an evaluation found, and writes it to files."""

from pathlib import Path
from typing import Annotated

import typer

from ..reports.report import PAGE, write_report


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder that `neuroae attack` wrote. The evaluation need not be finished.")
    ],
) -> None:
    """Print the table and the sanity report of an evaluation, and write them into its folder.

    The files are report.html with pictures, results.md, results.csv, summary.json and sanity.json.
    """
    print(write_report(folder))
    print(f"\npage: {folder / PAGE}")
