"""Pictures do not follow the user's style, and a picture that fails does not stop the report."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch

from dictionaries import unit_atoms
from evaluation_folder import ATTACKS, write_evaluation
from neuroae.reports import TrainingRecord, write_report
from neuroae.reports.pictures import Strip, draw_atoms, draw_picture
from neuroae.training import Epoch

EPOCHS = [Epoch("decoder", number, 0.1, 1 / number, 0.5, 100.0) for number in (1, 2)]


@pytest.fixture
def latex(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets a user's style that needs LaTeX, which is missing."""
    monkeypatch.setenv("PATH", "/nowhere")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40}):
        yield
        assert matplotlib.rcParams["text.usetex"]


CHARTS = {
    "curves.png": lambda folder: TrainingRecord(folder).update(EPOCHS),
    "atoms.png": lambda folder: draw_atoms(folder / "atoms.png", unit_atoms(6, 3, 4)),
    "strips.png": lambda folder: draw_picture(folder / "strips.png", [Strip("some", torch.rand(2, 3, 8, 8))]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.usefixtures("latex")
def test_pictures_are_the_same_in_any_style(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path / "own", tmp_path / "default"):
        folder.mkdir()
        torch.manual_seed(0)
        with matplotlib.rc_context({} if folder.name == "own" else matplotlib.rcParamsDefault.copy()):
            CHARTS[name](folder)
    assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "default" / name).read_bytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("latex")
def test_a_report_has_its_page_in_any_style(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", ATTACKS)
    write_report(folder)
    assert (folder / "report.html").read_text().count("data:image/svg+xml") >= 2


def fail(*_: object) -> None:
    raise RuntimeError("no font")


def test_a_chart_that_fails_is_a_warning_and_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_evaluation(tmp_path / "evaluation", ATTACKS)
    monkeypatch.setattr("neuroae.reports.report.accuracy_chart", fail)
    with pytest.warns(UserWarning, match=r"Accuracy by attack could not be drawn: RuntimeError\('no font'\)"):
        write_report(folder)
    page = (folder / "report.html").read_text()
    assert "Accuracy by attack" not in page
    assert "Accuracy against the number of draws" in page


def test_curves_that_fail_are_a_warning_and_the_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroae.reports.training_record.draw_curves", fail)
    with pytest.warns(UserWarning, match=r"curves\.png could not be drawn"):
        TrainingRecord(tmp_path).update(EPOCHS)
    assert len((tmp_path / "epochs.csv").read_text().splitlines()) == 3
