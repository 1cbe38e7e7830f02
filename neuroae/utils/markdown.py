"""Tables in Markdown, aligned so that they read well as plain text."""

from collections.abc import Iterable, Sequence

MIN_WIDTH = 3


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """Returns a table, one line for each row.

    Args:
        header: The names of the columns.
        rows: The cells, as many in each row as the header has.
        text_columns: The number of leading columns that are aligned to the left. The others are aligned to the right.

    Raises:
        ValueError: A row has another length than the header.
    """
    lines = [header, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(MIN_WIDTH, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * width if number < text_columns else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    return "\n".join(align(cells, widths, text_columns) for cells in (lines[0], rules, *lines[1:]))


def align(cells: Sequence[str], widths: Sequence[int], text_columns: int) -> str:
    """Returns one line of a table."""
    padded = [
        cell.ljust(width) if number < text_columns else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
