"""Functions that take folders and files accept them as text."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from killed_run import SETTINGS, random_data, untrained
from neuroae.dictionary import load_dictionary, save_dictionary
from neuroae.evaluation import load_evaluation, run_evaluation
from neuroae.evaluation.ready_made import load_ready_made
from neuroae.reports import Strip, TrainingRecord, draw_picture, write_report
from neuroae.training import Run, train_plain
from neuroae.utils.files import save_tensors
from small_evaluation import random_data as random_images
from small_evaluation import small_evaluation


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_of_evaluations_and_their_reports() -> None:
    evaluation = small_evaluation(images=4)
    results = run_evaluation(evaluation, "folder/attacked")
    write_report("folder/attacked")
    assert Path("folder/attacked/report.html").exists()
    assert load_evaluation("folder/attacked").records == results.records


def test_of_adversarial_images() -> None:
    data = random_images(2)
    save_tensors(Path("images.safetensors"), {"images": data.images / 255})
    assert torch.equal(load_ready_made("images.safetensors", data).images, data.images / 255)


def test_of_dictionaries() -> None:
    atoms = F.normalize(torch.randn(3, 1, 2, 2).flatten(1)).reshape(3, 1, 2, 2)
    save_dictionary("folder/atoms.safetensors", atoms)
    assert torch.equal(load_dictionary("folder/atoms.safetensors"), atoms)


def test_of_trainings_and_their_records() -> None:
    Path("trained").mkdir()
    train_plain(untrained(), random_data(16), SETTINGS, Run("trained", report=TrainingRecord("trained").update))
    assert {"checkpoint-classifier.safetensors", "epochs.csv", "curves.png"} <= {
        path.name for path in Path("trained").iterdir()
    }


def test_of_pictures() -> None:
    draw_picture("picture.png", [Strip("noise", torch.rand(2, 1, 4, 4))])
    assert Path("picture.png").exists()
