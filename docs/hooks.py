"""Brings pages from outside of docs/ into the site: README.md as the home page, results/, and files that pages name.

In the repository a page of docs/ links to ``../results/NAME``. In the site docs/ is the root, and the rest of the
repository lies below it, so links are written anew.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
HOME = "README.md"
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "neuroae/attacks/protocol.py")
FOLDERS = {"results": (".md", ".html", ".png"), "examples": (".py",)}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the home page and the files from outside of docs/."""
    pages = [path for folder, kinds in FOLDERS.items() for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    for path in [ROOT / name for name in OUTSIDE] + sorted(pages):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / HOME)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes relative links for the site's layout."""
    source = Path(page.file.abs_src_path or "")
    return LINK.sub(lambda link: site_link(link[1], source, page.file.src_uri), markdown)


def site_link(target: str, source: Path, uri: str) -> str:
    """Returns a link of a page for the site; links to nothing in the repository stay, and the build reports them.

    Args:
        target: The link's path in the repository, relative to the page.
        source: The page's file.
        uri: Where the page is in the site, from its root.
    """
    path = (source.parent / target).resolve()
    if path.is_dir():
        candidates = [path / HOME, path / "report.html", ROOT / "docs" / f"{path.name}.md"]
        path = next((page for page in candidates if page.exists()), path)
    if not path.is_relative_to(ROOT) or not path.exists():
        return target
    place = path.relative_to(ROOT).as_posix().removeprefix("docs/")
    place = "index.md" if place == HOME else place
    return "../" * uri.count("/") + place
