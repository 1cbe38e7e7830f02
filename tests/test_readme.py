"""The README and the documents: their examples run as printed, links lead somewhere, and terms are explained."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
MOST_WORDS = 900
PACKAGES = ("attacks", "data", "dictionary", "evaluation", "models", "reports", "training")
TERMS = ("APGD", "AT", "B-T", "BPDA", "EOT", "FGSM", "N_E", "PGD", "PW-T", "W-AIGA", "W-NFGA")


def run_examples(document: str, count: int) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == count
    names: dict[str, object] = {"__name__": "example"}
    for example in examples:
        exec(compile(example, document, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "count"),
    [("README.md", 1), ("docs/quickstart.md", 1), ("docs/own-model.md", 2), ("docs/defense.md", 2)],
)
def test_examples_of_the_first_pages(document: str, count: int) -> None:
    run_examples(document, count)


@pytest.mark.slow
def test_examples_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attacks the model that the first trains."""
    monkeypatch.chdir(tmp_path)
    run_examples("docs/training.md", 1)
    run_examples("docs/evaluation.md", 4)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{target} is missing"
        if anchor and not anchor.startswith("neuroae."):  # those of the API reference come from docstrings
            assert anchor in anchors(path), f"{target} has no heading {anchor}"


def test_the_page_of_examples_includes_every_script() -> None:
    """The site replaces these lines. A formatter that takes them for Python would break them."""
    lines = re.findall(r'^--8<-- "(.+)"$', (ROOT / "docs/examples.md").read_text(), re.MULTILINE)
    assert sorted(lines) == sorted(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("term", TERMS)
def test_the_glossary_explains_a_term(term: str) -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    (meaning,) = [meaning for names, meaning in rows if term in names.split(", ")]
    assert len(meaning.split()) >= 3


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{name}.md" for name in ("attacks", "defense", "broken"))])
def test_the_papers_attacks_are_spelled_out_where_they_are_met(document: str) -> None:
    text = " ".join((ROOT / document).read_text().split())
    for name, meaning in (("W-NFGA", "gradient"), ("W-AIGA", "autoencoder")):
        first = text.find(name)
        assert first < 0 or meaning in text[first : first + 400]


@pytest.mark.parametrize("package", ["", *(f".{name}" for name in PACKAGES)], ids=lambda package: f"neuroae{package}")
def test_the_reference_has_every_public_function_and_class(package: str) -> None:
    module = importlib.import_module(f"neuroae{package}")
    reference = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert re.search(rf"^::: neuroae\.(\w+\.)*{name}$", reference, re.MULTILINE), f"{name} is missing"
