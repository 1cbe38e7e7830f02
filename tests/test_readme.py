"""The Python examples of the README and the documents run as printed, one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_examples(document: str, count: int) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == count
    names: dict[str, object] = {"__name__": "example"}
    for example in examples:
        exec(compile(example, document, "exec"), names)


def test_examples_of_the_readme() -> None:
    run_examples("README.md", 3)


@pytest.mark.slow
def test_examples_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attacks the model that the first trains."""
    monkeypatch.chdir(tmp_path)
    run_examples("docs/training.md", 1)
    run_examples("docs/evaluation.md", 4)
