"""``neuroae report``: prints what evaluations found, and writes it to files."""

from pathlib import Path
from typing import Annotated

import typer

from ..evaluation import merge_evaluations
from ..reports.report import PAGE, write_report
from ..utils.files import save_json

MERGED = "verdict.json"


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folder that `neuroae attack` wrote. The evaluation need not be finished. Several folders, of "
            "finished evaluations of one model on the same images and scoring draws, give one verdict.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help=f"For several folders: folder to write {MERGED} into.", show_default="none"),
    ] = None,
) -> None:
    """Print the table and the sanity report of an evaluation, and write them into its folder.

    The files are report.html with pictures, results.md, results.csv, summary.json and sanity.json.

    Of several evaluations it prints the worst of each image, over all attacks of a budget.
    """
    if len(folders) > 1:
        verdicts = merge_evaluations(folders)
        print("\n\n".join(map(str, verdicts)))
        if output is not None:
            save_json(output / MERGED, {"verdicts": [verdict.as_json() for verdict in verdicts]})
        return
    if output is not None:
        raise ValueError(f"output is {output}, expected none with one folder, which its report goes into")
    (folder,) = folders
    print(write_report(folder))
    print(f"\npage: {folder / PAGE}")
