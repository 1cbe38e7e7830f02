"""Stops, resumes and several processes: the records are always those of an uninterrupted run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import killed_evaluation
import shared_evaluation
from neuroae.data import load_dataset
from neuroae.evaluation import Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.evaluation import run as evaluation_run
from neuroae.evaluation.attack import Perturbation
from neuroae.evaluation.checks import sanity
from neuroae.evaluation.folder import append_lines, load_images, read_lines, save_images
from neuroae.utils.files import load_tensors, save_tensors
from results_data import cifar10_folder, small_cifar10_defense
from small_evaluation import BUDGET, contents, small_evaluation

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run(*arguments: object) -> str:
    """Runs Python on the arguments with one thread for each process, and returns its output."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    finished = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an uninterrupted evaluation."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sanity, "STEPS", killed_evaluation.FEW_STEPS)
        run_evaluation(small_evaluation(), folder)
    return folder


def assert_same(folder: Path, complete: Path) -> None:
    """Requires equal bits in records, images and probes, and no other files."""
    assert (folder / "records.jsonl").read_bytes() == (complete / "records.jsonl").read_bytes()
    if (folder / "sanity.json").exists():
        assert (folder / "sanity.json").read_bytes() == (complete / "sanity.json").read_bytes()
    images = [path.relative_to(complete) for path in complete.glob("images/*/*")]
    assert len(images) == 12
    for path in images:
        assert (folder / path).read_bytes() == (complete / path).read_bytes(), path
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    # A temporary file of the sanity report is left until it is old, since a report may be writing it.
    paths = {path for path in paths if not path.name.startswith((".sanity-", "sanity.json"))}
    parts = {path for path in paths if path.parts[0] in ("records", "times")}
    assert paths - parts == {*images, *map(Path, (".lock", "manifest.json", "records.jsonl", "times.jsonl"))}


def test_a_kill_at_any_moment_costs_nothing(tmp_path: Path, complete: Path) -> None:
    kills = int(run(killed_evaluation.__file__, tmp_path))
    assert kills >= 3
    for name in ("points", "moments"):
        assert (tmp_path / name / "sanity.json").exists()
        assert_same(tmp_path / name, complete)


def test_the_papers_layers_in_bfloat16_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """A block that is crafted again has the same bits as in the first run."""
    torch.manual_seed(2)
    model = small_cifar10_defense()
    data = load_dataset("cifar10", "test", cifar10_folder(tmp_path / "data"))
    attacks = attacks_from(model, BUDGET, ["w-nfga-smooth"], "bfloat16")
    evaluation = Evaluation(model, data, attacks, Scoring(2), 2, "paper's")
    run_evaluation(evaluation, tmp_path / "found")
    before = contents(tmp_path / "found")
    images = tmp_path / "found" / "images" / "w-nfga-smooth" / "00001.safetensors"
    images.unlink()
    run_evaluation(evaluation, tmp_path / "found")
    for name in (str(images.relative_to(tmp_path / "found")), "records.jsonl"):
        assert contents(tmp_path / "found")[name][1] == before[name][1]


@pytest.fixture
def crafted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records attack and first image of each block that is crafted from now on."""
    blocks: list[tuple[str, int]] = []
    craft = evaluation_run.craft

    def recorded(attack: Perturbation, model, block, *rest):  # type: ignore[no-untyped-def]
        blocks.append((attack.name, int(block.ids[0])))
        return craft(attack, model, block, *rest)

    monkeypatch.setattr(evaluation_run, "craft", recorded)
    return blocks


def test_a_finished_evaluation_does_nothing(tmp_path: Path, crafted: list[tuple[str, int]]) -> None:
    first = run_evaluation(small_evaluation(), tmp_path)
    assert len(crafted) == 12
    before = contents(tmp_path)
    assert run_evaluation(small_evaluation(), tmp_path).records == first.records
    assert len(crafted) == 12
    assert contents(tmp_path) == before


def cut(path: Path, bytes_off: int) -> None:
    path.write_bytes(path.read_bytes()[:-bytes_off])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


def other_ids(path: Path) -> None:
    tensors, _ = load_tensors(path)
    save_images(path, tensors["images"], tensors["ids"] + 1)


def other_tensors(path: Path) -> None:
    save_tensors(path, {"images": load_tensors(path)[0]["images"]})


def deep_metadata(path: Path) -> None:
    save_file({"images": load_tensors(path)[0]["images"]}, path, {"crc32": "[" * 200_000})


def spoil_a_line(path: Path) -> None:
    path.write_text(path.read_text().replace('"image":8,"label":1,', '"image":8,"label":2,', 1))


LAST = ("W-NFGA smooth from other", 32)
SECOND = ("clean", 14)
PART, IMAGES = "records/part-0.jsonl", "images/clean/00001.safetensors"


@pytest.mark.parametrize("merged", [False, True], ids=["while it runs", "after its end"])
@pytest.mark.parametrize(
    ("file", "damage", "redone"),
    [
        (PART, lambda path: cut(path, 20), [LAST]),
        (PART, lambda path: cut(path, 1), [LAST]),
        (PART, spoil_a_line, [("clean", 5)]),
        (IMAGES, lambda path: cut(path, 8), [SECOND]),
        (IMAGES, lambda path: path.write_bytes(b""), [SECOND]),
        (IMAGES, Path.unlink, [SECOND]),
        (IMAGES, flip_a_bit, [SECOND]),
        (IMAGES, other_ids, [SECOND]),
        (IMAGES, other_tensors, [SECOND]),
        (IMAGES, deep_metadata, [SECOND]),
        ("times/part-0.jsonl", lambda path: cut(path, 3), []),
    ],
    ids=[
        "last record torn",
        "last record without its end",
        "a record changed",
        "images cut short",
        "images empty",
        "images missing",
        "a bit of the images flipped",
        "images of others",
        "images without ids",
        "images with metadata that cannot be read",
        "last time torn",
    ],
)
def test_what_is_damaged_is_made_again_and_nothing_else(
    tmp_path: Path,
    complete: Path,
    crafted: list[tuple[str, int]],
    file: str,
    damage: Callable[[Path], object],
    redone: list[tuple[str, int]],
    merged: bool,
) -> None:
    run_evaluation(small_evaluation(), tmp_path)
    crafted.clear()
    damage(tmp_path / file)
    if not merged:
        (tmp_path / "records.jsonl").unlink()
        (tmp_path / "times.jsonl").unlink()
    results = run_evaluation(small_evaluation(), tmp_path)
    # What was merged still has the records.
    assert crafted == ([] if merged and file == PART else redone)
    assert_same(tmp_path, complete)
    assert all(seconds > 0 for seconds in results.seconds.values())


@pytest.mark.parametrize("file", ["records.jsonl", "times.jsonl"])
def test_merged_files_are_mended_from_the_parts(
    tmp_path: Path, complete: Path, crafted: list[tuple[str, int]], file: str
) -> None:
    run_evaluation(small_evaluation(), tmp_path)
    crafted.clear()
    before = (tmp_path / file).read_bytes()
    cut(tmp_path / file, 30)
    run_evaluation(small_evaluation(), tmp_path)
    assert crafted == []
    assert (tmp_path / file).read_bytes() == before
    assert_same(tmp_path, complete)


def test_what_killed_writes_left_is_removed(tmp_path: Path, complete: Path) -> None:
    run_evaluation(small_evaluation(), tmp_path)
    for leftover in (
        ".manifest-a1b2c3d4.json",
        ".records-a1b2c3d4.jsonl",
        ".times-a1b2c3d4.jsonl",
        "images/clean/.00001-a1b2c3d4.safetensors",
    ):
        (tmp_path / leftover).write_bytes(b"half")
    run_evaluation(small_evaluation(), tmp_path)
    assert_same(tmp_path, complete)


def test_records_that_have_not_arrived_are_told(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    with pytest.raises(FileNotFoundError, match=r"lacks 30 records yet; start the evaluation again"):
        evaluation_run.merge(evaluation_run.Files(tmp_path), evaluation)


def begin(evaluation: Evaluation, folder: Path, blocks: int) -> None:
    """Runs an evaluation that stops after so many blocks, as if it were killed."""
    finish, calls = evaluation_run.finish_block, []

    class Killed(Exception):
        pass

    def stopping(*arguments):  # type: ignore[no-untyped-def]
        if len(calls) == blocks:
            raise Killed
        calls.append(arguments)
        finish(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation_run, "finish_block", stopping)
        with pytest.raises(Killed):
            run_evaluation(evaluation, folder)


def test_two_processes_go_on_where_one_stopped_and_one_where_two_did(tmp_path: Path, complete: Path) -> None:
    two, mixed = tmp_path / "two", tmp_path / "mixed"
    begin(small_evaluation(), mixed, blocks=5)
    run(*TORCHRUN, shared_evaluation.__file__, two, mixed)
    for folder in (two, mixed):
        assert (folder / "sanity.json").exists()
        assert_same(folder, complete)
    counts = [len((two / "records" / f"part-{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)]
    assert sum(counts) == 30
    assert min(counts) >= 12
    for part in (two / "records").iterdir():
        cut(part, 20)
    (two / "records.jsonl").unlink()
    run_evaluation(small_evaluation(), two)
    assert_same(two, complete)
    assert load_images(two / IMAGES, torch.tensor([14, 17, 20])).shape == (3, 1, 8, 8)


def test_times_of_what_is_made_again_are_forgotten(tmp_path: Path) -> None:
    """This includes a block that was first crafted by a process whose file of times comes later in the alphabet."""
    run_evaluation(small_evaluation(), tmp_path)
    part = tmp_path / "times" / "part-0.jsonl"
    lines = [line | {"seconds": 1000.0} for line in read_lines(part)]
    part.unlink()
    append_lines(tmp_path / "times" / "part-7.jsonl", lines)
    shutil.rmtree(tmp_path / "images" / "w-aiga")
    run_evaluation(small_evaluation(), tmp_path)
    old_seconds, new_seconds = (
        [line["seconds"] for line in read_lines(tmp_path / "times.jsonl") if (line["attack"] == "W-AIGA") == other]
        for other in (False, True)
    )
    assert set(old_seconds) == {1000.0}
    assert new_seconds
    assert max(new_seconds) < 1000


def test_what_is_made_again_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes a block that was first crafted by a process whose file of records comes later in the alphabet."""
    run_evaluation(small_evaluation(), tmp_path)
    (tmp_path / "records" / "part-0.jsonl").rename(tmp_path / "records" / "part-7.jsonl")
    images = tmp_path / "images" / "w-aiga" / "00001.safetensors"
    images.unlink()
    craft = evaluation_run.craft

    def otherwise(*arguments):  # type: ignore[no-untyped-def]
        perturbed = craft(*arguments)
        return perturbed._replace(images=perturbed.images * 0.99)

    monkeypatch.setattr(evaluation_run, "craft", otherwise)
    results = run_evaluation(small_evaluation(), tmp_path)
    saved, clean = load_tensors(images)[0], small_evaluation().load(1)
    largest = (saved["images"].double() - clean.images.double()).abs().amax((1, 2, 3)).tolist()
    norms = {record.image: record.linf for record in results.records["W-AIGA"]}
    assert [norms[image] for image in clean.ids.tolist()] == pytest.approx(largest)
