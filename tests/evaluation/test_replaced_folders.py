"""Runs whose folder is removed or replaced while they work: they write nothing into another run's folder."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from killed_run import SETTINGS, random_data, untrained
from neuroae.evaluation import Evaluation, load_evaluation, run, run_evaluation
from neuroae.evaluation.checks import probe_evaluation
from neuroae.evaluation.folder import Files, append_lines, load_images, read_lines
from neuroae.evaluation.results import load_partial
from neuroae.training import Run, loop, train_plain
from neuroae.utils.files import (
    FolderReplacedError,
    claimed,
    load_json,
    load_tensors,
    replacing,
    save_json,
    save_tensors,
)
from saved_models import small_model
from small_evaluation import contents, small_evaluation


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def make_anew(folder: Path) -> None:
    shutil.rmtree(folder)
    with claimed(folder):
        pass


WRITES: dict[str, Callable[[Path], object]] = {
    "json": lambda path: save_json(path, 1),
    "tensors": lambda path: save_tensors(path, {"a": torch.zeros(1)}),
    "lines": lambda path: append_lines(path, [{}]),
}


@pytest.mark.parametrize("lose", [remove, make_anew])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["file", "below/file"])
def test_nothing_is_written_into_a_folder_that_is_no_longer_the_claimed_one(
    tmp_path: Path, lose: Callable[[Path], None], write: str, name: str
) -> None:
    folder = tmp_path / "run"
    with claimed(folder):
        WRITES[write](folder / name)
        lose(folder)
        with pytest.raises(FolderReplacedError, match="run was removed or replaced while this run was at work"):
            WRITES[write](folder / name)
    assert not (folder / name).exists()
    WRITES[write](folder / name)


def test_a_file_that_takes_long_to_write_does_not_get_into_another_runs_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def write_for_long() -> None:
        with replacing(folder / "file") as temporary:
            temporary.write_text("mine")
            make_anew(folder)

    with claimed(folder), pytest.raises(FolderReplacedError):
        write_for_long()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_claim_within_a_claim_ends_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder):
        make_anew(folder)
        with pytest.raises(FolderReplacedError):
            save_json(folder / "file", 1)


def test_an_orphaned_training_leaves_anothers_model_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder):
        shutil.rmtree(folder)
        with claimed(folder):
            small_model("classifier").save_pretrained(folder)
        before = contents(folder)
        with pytest.raises(FolderReplacedError):
            small_model("classifier").save_pretrained(folder)
    assert contents(folder) == before


def other_evaluation() -> Evaluation:
    return small_evaluation(seed=4)


def at_block(number: int, action: Callable[[], object]) -> Callable[..., object]:
    """Returns a ``craft`` that performs the action before a certain block."""
    craft, calls = run.craft, []

    def crafting(*arguments):  # type: ignore[no-untyped-def]
        calls.append(arguments)
        if len(calls) == number:
            run.craft = craft
            action()
            run.craft = crafting
        return craft(*arguments)

    return crafting


@pytest.mark.parametrize("evaluation", [other_evaluation, small_evaluation], ids=["other", "the same"])
def test_an_orphaned_evaluation_leaves_anothers_records_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: Callable[[], Evaluation]
) -> None:
    folder = tmp_path / "run"
    left_contents = []

    def another() -> None:
        shutil.rmtree(folder)
        run_evaluation(evaluation(), folder)
        left_contents.append(contents(folder))

    monkeypatch.setattr(run, "craft", at_block(5, another))
    with pytest.raises(FolderReplacedError, match="start this"):
        run_evaluation(small_evaluation(), folder)
    assert [contents(folder)] == left_contents
    assert load_evaluation(folder).manifest["identity"]["scoring"]["seed"] == evaluation().scoring.seed


def test_an_evaluation_whose_manifest_is_gone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock file is left, as by `rm -r FOLDER/*`."""
    monkeypatch.setattr(run, "craft", at_block(5, (tmp_path / "manifest.json").unlink))
    with pytest.raises(FolderReplacedError, match=r"manifest\.json is gone"):
        run_evaluation(small_evaluation(), tmp_path)
    assert len(read_lines(tmp_path / "records" / "part-0.jsonl")) == 10


def test_records_and_images_of_another_evaluation_are_made_again(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    complete = run_evaluation(small_evaluation(), mine)
    run_evaluation(other_evaluation(), others)
    lines = read_lines(others / "records.jsonl")
    assert {line["stamp"] for line in lines} == {load_json(others / "manifest.json")["stamp"]}
    append_lines(mine / "records" / "part-9.jsonl", lines)
    (mine / "records.jsonl").unlink()
    image = "images/w-aiga/00001.safetensors"
    shutil.copy(others / image, mine / image)
    assert load_partial(mine).records == complete.records
    ids = load_tensors(mine / image)[0]["ids"]
    with pytest.raises(ValueError, match="holds images of another evaluation"):
        load_images(mine / image, ids, complete.manifest["stamp"])
    again = run_evaluation(small_evaluation(), mine)
    assert again.records == complete.records
    load_images(mine / image, ids, complete.manifest["stamp"])


def test_folders_of_earlier_versions_stay_without_stamps(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    complete = run_evaluation(evaluation, tmp_path)
    manifest = load_json(tmp_path / "manifest.json")
    del manifest["stamp"]
    save_json(tmp_path / "manifest.json", manifest)
    files = Files(tmp_path)
    for path in [*files.record_parts(), *(tmp_path / "images").rglob("*.safetensors")]:
        if path.suffix == ".jsonl":
            lines = [{name: value for name, value in line.items() if name != "stamp"} for line in read_lines(path)]
            path.unlink()
            append_lines(path, lines)
        else:
            tensors, metadata = load_tensors(path)
            save_tensors(path, tensors, {"crc32": metadata["of"]["crc32"]})
    before = contents(tmp_path)
    results = run_evaluation(evaluation, tmp_path)
    assert contents(tmp_path) == before
    assert results.records == {
        name: [replace(record, stamp="") for record in records] for name, records in complete.records.items()
    }
    shutil.rmtree(tmp_path / "images" / "w-aiga")
    assert run_evaluation(evaluation, tmp_path).records == results.records


def test_probes_of_a_folder_that_another_evaluation_has_by_now_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_evaluation(small_evaluation(), tmp_path / "run")

    def slow(*_: object) -> list[object]:
        shutil.rmtree(tmp_path / "run")
        run_evaluation(other_evaluation(), tmp_path / "run")
        return []

    monkeypatch.setattr("neuroae.evaluation.checks.sanity.probe", slow)
    with pytest.raises(FolderReplacedError, match="is of another evaluation by now"):
        probe_evaluation(small_evaluation(), tmp_path / "run")
    assert not (tmp_path / "run" / "sanity.json").exists()


def test_an_orphaned_training_leaves_anothers_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    data, probes = random_data(32), []

    def train(model: nn.Module, seed: int) -> None:
        train_plain(model, data, replace(SETTINGS, seed=seed), Run(folder))

    def another(*_: object) -> None:
        monkeypatch.setattr(loop, "finish_epoch", finish)
        shutil.rmtree(folder)
        train(untrained(), 9)
        probes.append(contents(folder))

    finish = loop.finish_epoch

    def finish_second(*arguments):  # type: ignore[no-untyped-def]
        finish(*arguments)
        if arguments[2].epoch == 2:
            another()

    monkeypatch.setattr(loop, "finish_epoch", finish_second)
    with pytest.raises(FolderReplacedError, match=r"checkpoint-classifier\.safetensors is not written"):
        train(untrained(), 3)
    assert [contents(folder)] == probes
    assert load_tensors(folder / "checkpoint-classifier.safetensors")[1]["identity"]["settings"]["seed"] == 9
