"""The page of an experiment, which a folder's visitor sees first."""

from pathlib import Path
from typing import Any

from neuroae.storage import replacing
from results.provenance import in_words

PAGE = "README.md"


def write_page(folder: Path, title: str, parts: list[str], made: dict[str, Any]) -> None:
    """A heading, the parts, and what it was made with and of (see ``provenance``)."""
    with replacing(folder / PAGE) as temporary:
        temporary.write_text("\n\n".join([f"# {title}", *parts, in_words(made)]) + "\n", encoding="utf-8")
