"""Writes a repository's address into the project, before a release is built: addresses.py URL.

The metadata gets its links. The README's relative links become absolute, since a package index shows it alone.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = "[project.urls]\n"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")


def main(url: str) -> None:
    metadata, readme = ROOT / "pyproject.toml", ROOT / "README.md"
    text = metadata.read_text(encoding="utf-8")
    if text.count(SECTION) != 1:
        raise SystemExit(f"{metadata} has no section {SECTION.strip()}")
    added = f'Source = "{url}"\nIssues = "{url}/issues"\nChangelog = "{url}/blob/main/CHANGELOG.md"\n'
    metadata.write_text(text.replace(SECTION, SECTION + added), encoding="utf-8")
    page = readme.read_text(encoding="utf-8")
    readme.write_text(LINK.sub(lambda link: absolute(url, *link.groups()), page), encoding="utf-8")


def absolute(url: str, picture: str, text: str, target: str) -> str:
    """Returns a link to the page of a file, or a picture's own address."""
    return f"{picture}[{text}]({url}/{'raw' if picture else 'blob'}/main/{target})"


main(*sys.argv[1:])
