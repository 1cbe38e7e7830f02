"""Evaluations by the command line: they are scored and reported, resumed, and their small files published."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner, Result

from neuroae import resnet32
from neuroae.attacks import PGDSettings
from neuroae.evaluation import Accuracy, Attack, attacks_from, load_evaluation
from neuroae.evaluation import run as evaluation_run
from neuroae.utils.files import load_json
from results import runs
from results.__main__ import evaluation_command
from results.experiments import Experiment
from results_data import cifar10_folder, run, small_cifar10_defense

SMALL = PGDSettings(steps=1, realizations=2)
IMAGES = 6


def two_attacks(defense: nn.Module) -> list[Attack]:
    return attacks_from(defense, SMALL, ("w-nfga-smooth", "w-aiga"))


TABLE1 = Experiment("Two attacks.", two_attacks, IMAGES, block=4)


@pytest.fixture(scope="module", autouse=True)
def probed() -> Iterator[list[tuple[str, Path]]]:
    """Records the probes of the sanity report instead of running them, since they take long."""
    probes: list[tuple[str, Path]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            evaluation_run, "probe_evaluation", lambda evaluation, work: probes.append((evaluation.name, work))
        )
        yield probes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Returns a folder with models, images and the evaluation, and the command's result."""
    torch.set_num_threads(1)  # as in the tests, which could not go on with it otherwise
    folder = tmp_path_factory.mktemp("done")
    small_cifar10_defense().save_pretrained(folder / "defense")
    cifar10_folder(folder / "data", IMAGES + 3)
    return folder, evaluate(folder)


@pytest.fixture
def folder(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    """Returns a copy of the folder that a test may change."""
    return shutil.copytree(finished[0], tmp_path / "copy")


def evaluate(folder: Path, *more: object, name: str = "table1", experiment: Experiment = TABLE1) -> Result:
    app = typer.Typer()
    app.command()(evaluation_command(name, experiment))
    places = ["--data-dir", folder / "data", "--work", folder / "work", "--output", folder / "results"]
    model = [f"--{experiment.attacked}", folder / experiment.attacked]
    arguments = [str(argument) for argument in (*model, *places, *more)]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_an_experiment_is_probed_and_published_without_its_images(
    finished: tuple[Path, Result], probed: list[tuple[str, Path]]
) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.output
    assert probed[0] == ("defense", folder / "work" / "table1")
    published = folder / "results" / "table1"
    assert {path.name for path in published.iterdir()} == set(runs.COMMITTED)
    assert (published / "records.jsonl").read_bytes() == (folder / "work" / "table1" / "records.jsonl").read_bytes()
    summary = load_json(published / "summary.json")
    assert [row["attack"] for row in summary["attacks"]] == ["clean", "W-NFGA smooth", "W-AIGA"]
    assert summary["data"]["images"] == IMAGES
    assert sum(summary["sanity"].values()) > 5
    assert "W-NFGA smooth" in result.stdout


def test_what_is_published_keeps_its_seconds(folder: Path) -> None:
    published, working = (load_evaluation(folder / part / "table1").seconds for part in ("results", "work"))
    assert published == working
    assert all(published.values())


def test_a_classifier_answers_once(folder: Path) -> None:
    """It is deterministic, so 10 answers would be the same."""
    resnet32().eval().save_pretrained(folder / "undefended")
    only_clean = Experiment("Clean images.", lambda: [], 2, "undefended")
    result = evaluate(folder, name="table3-undefended", experiment=only_clean)
    assert result.exit_code == 0, result.output
    (records,) = load_evaluation(folder / "work" / "table3-undefended").records.values()
    assert [len(record.draws) for record in records] == [1, 1]


def test_an_experiment_that_is_done_is_left_alone(folder: Path, finished: tuple[Path, Result]) -> None:
    images = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.safetensors")}
    assert images
    assert evaluate(folder).stdout == finished[1].stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.safetensors")} == images


def test_fewer_images_are_another_evaluation(folder: Path) -> None:
    with pytest.raises(ValueError, match="data"):
        evaluate(folder, "--limit", 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="device is 'cuda'"):
        evaluate(folder, "--device", "cuda")


def test_a_page_of_its_own_is_written_from_what_is_published(folder: Path) -> None:
    pages: list[Path] = []
    with_page = Experiment("Clean images.", lambda: [], 2, write_page=pages.append)
    assert evaluate(folder, name="some", experiment=with_page).exit_code == 0
    assert pages == [folder / "results" / "some"]
    assert load_evaluation(pages[0]).records.keys() == {"clean"}


def test_figures_are_drawn_of_the_images_that_were_attacked(folder: Path) -> None:
    """Figures 4 and 6 read an evaluation's folder, whose images are the first of the data set's."""
    work = folder / "work" / "table1"
    options = ["--data-dir", folder / "data", "--model", folder / "defense", "--evaluation", work, "--output", folder]
    run("ensemble", *options)
    curves = load_json(folder / "ensemble" / "ensemble.json")["curves"]
    assert {name: points[0]["images"] for name, points in curves.items()} == {
        "clean": IMAGES + 3,
        "W-NFGA smooth": IMAGES,
        "W-AIGA": IMAGES,
    }
    for name, records in load_evaluation(work).records.items():
        right = sum(record.vote == record.label for record in records)
        assert name == "clean" or curves[name][9]["accuracy"] == right / IMAGES
    run("corruption", *options)
    assert set(load_json(folder / "corruption" / "results.json")["attacks"]) == {"W-NFGA smooth", "W-AIGA"}
    assert (folder / "corruption" / "figure4.png").read_bytes().startswith(b"\x89PNG")
    assert "fingerprint" in (folder / "corruption" / "README.md").read_text()
    run("autoencoder", *options)
    kinds = load_json(folder / "autoencoder" / "autoencoder.json")["kinds"]
    assert {name: kind["images"] for name, kind in kinds.items()} == {"clean": IMAGES + 3, "W-NFGA smooth": IMAGES}


def test_rounded_images_are_scored_as_numbers(folder: Path) -> None:
    work = folder / "work" / "table1"
    options = ["--data-dir", folder / "data", "--model", folder / "defense", "--output", folder]
    result = run("rounded", "--evaluation", work, *options)
    for row, (name, records) in zip(
        load_json(folder / "rounded" / "results.json")["rows"],
        list(load_evaluation(work).records.items())[1:],
        strict=True,
    ):
        assert (row["attack"], row["images"]) == (name, IMAGES)
        assert row["float32_correct"] == sum(record.vote == record.label for record in records)
        assert row["accuracy"] == row["correct"] / IMAGES
        assert row["correct"] - row["float32_correct"] == row["recovered"] - row["lost"]
        assert (row["low"], row["high"]) == Accuracy(row["correct"], IMAGES).interval()
    page = (folder / "rounded" / "README.md").read_text()
    assert result.stdout.strip() in page
    assert "fingerprint" in page


def test_figures_refuse_other_images(folder: Path) -> None:
    torch.manual_seed(5)
    other = cifar10_folder(folder / "other", IMAGES)

    def corruption(data: Path, model: Path) -> None:
        run("corruption", "--evaluation", folder / "work" / "table1", "--data-dir", data, "--model", model)

    with pytest.raises(ValueError, match="other images"):
        corruption(other, folder / "defense")
    small_cifar10_defense().save_pretrained(folder / "another")
    with pytest.raises(ValueError, match=r"model is not the one that .*table1 evaluates"):
        corruption(folder / "data", folder / "another")
    fewer = cifar10_folder(folder / "fewer", IMAGES - 2)
    with pytest.raises(ValueError, match=f"lacks image {IMAGES - 2} of .*, and 1 more"):
        corruption(fewer, folder / "defense")
