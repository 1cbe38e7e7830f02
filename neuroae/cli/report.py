"""``neuroae report``: show the saved results of an attack."""

from pathlib import Path
from typing import Annotated

import typer

from ..reports import Strip, draw_picture, load_results, markdown_table

PICTURE = "report.png"


def report(
    results: Annotated[Path, typer.Argument(help="Folder that `neuroae attack` wrote.")],
    images: Annotated[int, typer.Option(min=1, help="How many to show.")] = 8,
) -> None:
    """Print the table of saved results and draw the first images, clean and attacked, with the model's answers."""
    rows, outcomes, classes = load_results(results)
    strips = [
        Strip.of(name, outcome["images"][:images], outcome["predictions"], outcome["labels"], classes)
        for name, outcome in outcomes.items()
    ]
    picture = results / PICTURE
    draw_picture(picture, strips)
    print(markdown_table(rows))
    print(f"\npicture: {picture}")
