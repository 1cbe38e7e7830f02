"""Progress bars when the standard error is not a file."""

import sys
from pathlib import Path

import numpy as np
import pytest

from neuroae.data.cache import cached_array
from neuroae.utils.progress import progress_bar


class Writer:
    """A replacement for the standard error, as logging frameworks install it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def work() -> int:
    with progress_bar(total=3, desc="some work") as bar:
        for number in range(3):
            bar.update(1)
            bar.set_postfix({"loss": number}, refresh=True)
    return sum(progress_bar(iterable=range(4), desc="more work"))


def test_progress_goes_to_an_object_that_only_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    monkeypatch.setattr(sys, "stderr", writer)
    assert work() == 6
    assert "some work: 100%" in writer.text


def test_progress_goes_nowhere_without_a_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert work() == 6
    assert capsys.readouterr().out == ""


def test_a_closed_standard_error_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = (tmp_path / "errors.txt").open("w")
    file.close()
    monkeypatch.setattr(sys, "stderr", file)
    assert work() == 6


@pytest.mark.parametrize("stream", [None, Writer()], ids=["none", "write and flush"])
def test_notices_go_to_the_standard_error_or_nowhere(
    stream: Writer | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "stderr", stream)
    cached_array("some", (1, 2), [np.zeros(2, np.uint8)])
    assert capsys.readouterr().out == ""
    assert stream is None or "writing" in stream.text
