"""Tables in Markdown, aligned so that they read well as plain text."""

from collections.abc import Iterable, Sequence

SHORTEST_RULE = 3


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A line a row under the names of the columns.

    Args:
        header: names of the columns.
        rows: cells, as many as the header has.
        text_columns: so many of the first columns are set to the left; numbers follow, set to the right.
    """
    lines = [header, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(SHORTEST_RULE, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * width if number < text_columns else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    return "\n".join(line(cells, widths, text_columns) for cells in (lines[0], rules, *lines[1:]))


def line(cells: Sequence[str], widths: Sequence[int], text_columns: int) -> str:
    padded = [
        cell.ljust(width) if number < text_columns else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
