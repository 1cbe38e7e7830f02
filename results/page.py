"""The page of an experiment, which a folder's visitor sees first."""

from collections.abc import Sequence
from pathlib import Path

from neuroae.utils.files import replacing

PAGE = "README.md"


def write_page(folder: Path, title: str, parts: Sequence[str]) -> None:
    """A heading and the parts below it, in Markdown."""
    with replacing(folder / PAGE) as temporary:
        temporary.write_text("\n\n".join([f"# {title}", *parts]) + "\n", encoding="utf-8")
