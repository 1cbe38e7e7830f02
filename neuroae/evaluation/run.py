"""Runs an evaluation: crafts, scores and probes what is missing, in a folder or in memory."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..attacks import Perturbed
from ..attacks.steps import shared_graphs
from ..utils import distributed
from ..utils.contexts import repeatable
from ..utils.files import claimed, require_empty, save_json, watched
from ..utils.progress import progress_bar
from ..utils.versions import note_versions
from .attack import Perturbation, craft
from .checks.sanity import probe_evaluation
from .folder import Files, append_lines, load_images, save_images, write_lines
from .manifest import (
    STAMP_DIGITS,
    identity_of,
    load_manifest,
    new_manifest,
    note_seconds,
    require_agreement,
    require_identity,
    require_manifest,
)
from .measurements import behaviors, gradient_costs, require_same_behavior
from .plan import Evaluation
from .records import Record, append_records, read_records, read_times, record_fields
from .results import Results, join_details, load_evaluation
from .scoring import judge

# A block takes minutes, so the bar moves within it, by parts of images.
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
Key = tuple[str, int]


class Bar:
    """A progress bar that counts images under an attack.

    Args:
        title: The text in front of the bar.
        attack: The attack whose passes move the bar within a block.
        images: The number of images, finished ones included.
        done: Images that were finished before.
        right: How many of the finished images were classified correctly.
    """

    def __init__(self, title: str, attack: Perturbation, images: int, done: int = 0, right: int = 0) -> None:
        self.passes = attack.passes
        self.done = done
        self.right = right
        self.bar = progress_bar(total=images, initial=done, desc=title, unit="img", bar_format=FORMAT)
        self.show()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def crafting(self, passes: int) -> None:
        """Moves the bar by so many passes, over all images of the block."""
        self.bar.update(passes / self.passes)

    def scored(self, images: int, right: int) -> None:
        """Moves the bar to the end of a block of so many images, ``right`` of them classified correctly."""
        self.done += images
        self.right += right
        self.show()
        self.bar.update(self.done - self.bar.n)

    def show(self) -> None:
        if self.done:
            self.bar.set_postfix(accuracy=f"{self.right / self.done:.1%}", refresh=False)


class Store(Protocol):
    """Where the images and records of a block go."""

    def save_images(self, attack: str, block: int, perturbed: Perturbed, ids: Tensor) -> None:
        """Keeps the (B, C, H, W) images of a block and their details, before they are scored."""

    def save_records(self, attack: str, block: int, records: list[Record], seconds: float) -> None:
        """Keeps the records of a block and the seconds that it took."""


class FolderStore:
    """The evaluation's folder. A block's images are on the disk before its records are."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def save_images(self, attack: str, block: int, perturbed: Perturbed, ids: Tensor) -> None:
        require_manifest(self.files)
        path = self.files.images(attack, block)
        save_images(path, perturbed.images, ids, self.files.stamp, perturbed.details)

    def save_records(self, attack: str, block: int, records: list[Record], seconds: float) -> None:
        require_manifest(self.files)
        rank = distributed.rank()
        append_lines(self.files.time_part(rank), [{"attack": attack, "block": block, "seconds": seconds}])
        append_records(self.files.record_part(rank), [replace(record, stamp=self.files.stamp) for record in records])


class MemoryStore:
    """Images, records and seconds of each attack, in the order of the blocks."""

    def __init__(self) -> None:
        self.images: dict[str, list[Tensor]] = {}
        self.details: dict[str, list[dict[str, Tensor]]] = {}
        self.records: dict[str, list[Record]] = {}
        self.seconds: dict[str, float] = {}

    def save_images(self, attack: str, block: int, perturbed: Perturbed, ids: Tensor) -> None:
        self.images.setdefault(attack, []).append(perturbed.images.cpu())
        self.details.setdefault(attack, []).append(dict(perturbed.details))

    def save_records(self, attack: str, block: int, records: list[Record], seconds: float) -> None:
        self.records.setdefault(attack, []).extend(records)
        self.seconds[attack] = self.seconds.get(attack, 0.0) + seconds


def run_evaluation(evaluation: Evaluation, folder: str | Path | None = None) -> Results:
    """Evaluates a model: crafts its attacks, scores them, and probes the model for the sanity report.

    Stopped at any moment and called again with the same evaluation and folder, it makes what is missing, and ends
    with the records of a run that was not stopped. Under ``distributed.group`` the processes share the blocks; their
    number changes nothing in the records.

    Args:
        evaluation: The model, images, attacks and scoring.
        folder: The folder that keeps everything. None evaluates in memory, in this process alone, without probes and
            without measuring costs, which are for reports.

    Raises:
        ValueError: The folder belongs to an evaluation with other settings, which the message names, or the processes
            were started with different evaluations.
        BlockingIOError: Another run is at work in the folder.
        FolderReplacedError: The folder was removed or replaced while this run was at work in it.
    """
    if folder is None:
        return evaluate_in_memory(evaluation)
    folder = Path(folder)
    identity = identity_of(evaluation)
    require_agreement(identity, evaluation.device)
    with repeatable(), claimed(folder) if distributed.is_first() else nullcontext():
        complete(Files(folder), evaluation, identity)
        if distributed.is_first():
            probe_evaluation(evaluation, folder)
    return load_evaluation(folder)


def evaluate_in_memory(evaluation: Evaluation) -> Results:
    manifest = new_manifest(evaluation, identity_of(evaluation), costs={}, behavior={})
    store = MemoryStore()
    every_block = [list(range(evaluation.blocks)) for _ in evaluation.all_attacks]
    with repeatable():
        work(store, evaluation, every_block)
    images = {name: torch.cat(blocks) for name, blocks in store.images.items()}
    details = {name: join_details(blocks) for name, blocks in store.details.items()}
    return Results(None, manifest, store.records, store.seconds, images, details)


def complete(files: Files, evaluation: Evaluation, identity: dict[str, Any]) -> None:
    """Makes what is missing in the folder, and merges what the processes made."""
    if distributed.is_first():
        files.remove_leftovers()
        open_folder(files, evaluation, identity)
    files = replace(files, stamp=shared_stamp(files, evaluation.device))
    records = read_all_records(files) if distributed.is_first() else {}
    missing = missing_blocks(files, evaluation, records)
    if distributed.is_first() and bool(missing.any()):
        note_versions(files.manifest, load_manifest(files))
    with nullcontext() if distributed.is_first() else watched(files.folder):
        work(FolderStore(files), evaluation, share(missing), records, distributed.world_size())
    distributed.wait_for_all()
    if distributed.is_first():
        merge(files, evaluation)
    distributed.wait_for_all()


def open_folder(files: Files, evaluation: Evaluation, identity: dict[str, Any]) -> None:
    """Writes the manifest of an evaluation that begins, or checks that the folder's manifest is of this evaluation.

    Raises:
        ValueError: The manifest is damaged, or of an evaluation with other settings or with models that answer
            otherwise. Or the folder holds results and no manifest, which would say what they are of.
    """
    if files.manifest.exists():
        manifest = load_manifest(files)
        require_identity(files, manifest, evaluation, identity)
        if "behavior" in manifest:
            require_same_behavior(files.manifest, manifest["behavior"], behaviors(evaluation))
        return
    require_empty(files.manifest, files.work())
    behavior = behaviors(evaluation)
    save_json(files.manifest, new_manifest(evaluation, identity, gradient_costs(evaluation), behavior))


def shared_stamp(files: Files, device: torch.device) -> str:
    """Returns the manifest's stamp, which the first process tells the others; "" in folders of earlier versions."""
    stamp = load_manifest(files).get("stamp", "") if distributed.is_first() else ""
    number = int(distributed.total(torch.tensor(int(stamp or "0", 16)), device).item())
    return f"{number:0{STAMP_DIGITS}x}" if number else ""


def read_all_records(files: Files) -> dict[Key, Record]:
    """Returns all records of the folder by attack and image."""
    records = (record for path in files.record_parts() for record in read_records(path, files.stamp))
    return {(record.attack, record.image): record for record in records}


def missing_blocks(files: Files, evaluation: Evaluation, records: dict[Key, Record]) -> Tensor:
    """Returns (attacks, blocks) int64, 1 for a block whose records or images are missing or damaged.

    The first process looks for them, removes what is left of such blocks, and tells the others.
    """
    missing = torch.zeros(len(evaluation.all_attacks), evaluation.blocks, dtype=torch.int64)
    if distributed.is_first():
        for row, attack in enumerate(evaluation.all_attacks):
            for block in range(evaluation.blocks):
                missing[row, block] = not is_done(files, evaluation, attack.name, block, records)
        forget(files, evaluation, missing, records)
    return distributed.total(missing, evaluation.device).cpu()


def forget(files: Files, evaluation: Evaluation, missing: Tensor, records: dict[Key, Record]) -> None:
    """Removes records and times of blocks that will be made again, lest two records of one image differ."""
    blocks = {(evaluation.all_attacks[row].name, block) for row, block in missing.nonzero().tolist()}
    images = {(attack, image) for attack, block in blocks for image in evaluation.part(block).ids.tolist()}
    if images.intersection(records):
        for path in filter(Path.exists, files.record_parts()):
            lasting = (
                record for record in read_records(path, files.stamp) if (record.attack, record.image) not in images
            )
            write_lines(path, map(record_fields, lasting))
    for path in filter(Path.exists, files.time_parts()):
        times = read_times(path)
        lasting_times = [line for line in times if (line["attack"], line["block"]) not in blocks]
        if len(lasting_times) < len(times):
            write_lines(path, lasting_times)


def is_done(files: Files, evaluation: Evaluation, attack: str, block: int, records: dict[Key, Record]) -> bool:
    """Returns whether the folder holds all records and images of a block, undamaged."""
    ids = evaluation.part(block).ids
    if any((attack, image) not in records for image in ids.tolist()):
        return False
    try:
        load_images(files.images(attack, block), ids, files.stamp)
    except (OSError, ValueError):
        return False
    return True


def share(missing: Tensor) -> list[list[int]]:
    """Returns this process's share of the missing blocks, a list for each attack."""
    blocks: list[list[int]] = [[] for _ in missing]
    for attack, block in missing.nonzero()[distributed.rank() :: distributed.world_size()].tolist():
        blocks[attack].append(block)
    return blocks


def work(
    store: Store,
    evaluation: Evaluation,
    blocks: list[list[int]],
    records: Mapping[Key, Record] = MappingProxyType({}),
    processes: int = 1,
) -> None:
    """Crafts and scores a process's blocks of each attack; the progress counts the records that exist already."""
    for attack, numbers in zip(evaluation.all_attacks, blocks, strict=True):
        if not numbers:
            continue
        with bar(evaluation, attack, numbers, records, processes) as progress, shared_graphs():
            for number in numbers:
                finish_block(store, evaluation, attack, number, progress)


def bar(
    evaluation: Evaluation, attack: Perturbation, blocks: list[int], records: Mapping[Key, Record], processes: int
) -> Bar:
    """Returns a bar over the images of these blocks and those that have a record already."""
    missing = {image for block in blocks for image in evaluation.part(block).ids.tolist()}
    done = [record for (name, image), record in records.items() if name == attack.name and image not in missing]
    right = sum(record.vote == record.label for record in done)
    suffix = f" (1 of {processes} processes)" if processes > 1 else ""
    return Bar(f"{evaluation.name}: {attack.name}{suffix}", attack, len(missing) + len(done), len(done), right)


def finish_block(store: Store, evaluation: Evaluation, attack: Perturbation, number: int, progress: Bar) -> None:
    """Crafts and scores one block. Images are saved before records: a block with records is complete."""
    started = time.perf_counter()
    block = evaluation.load(number)
    perturbed = craft(attack, evaluation.model, block, evaluation.scoring, progress.crafting)
    store.save_images(attack.name, number, perturbed, block.ids)
    records = judge(evaluation.model, attack.name, block, perturbed, evaluation.scoring)
    store.save_records(attack.name, number, records, time.perf_counter() - started)
    progress.scored(len(records), sum(record.vote == record.label for record in records))


def merge(files: Files, evaluation: Evaluation) -> None:
    """Writes the files of all records and times, in order, unless the folder holds them already.

    Raises:
        FileNotFoundError: Records are missing, as they may be for a while in a folder that machines share.
    """
    names = [attack.name for attack in evaluation.all_attacks]
    records = read_all_records(files)
    keys = [(name, image) for name in names for image in evaluation.data.ids.tolist()]
    absent = sum(key not in records for key in keys)
    if absent:
        raise FileNotFoundError(f"{files.folder} lacks {absent:,} records yet; start the evaluation again to go on")
    write_lines(files.records, (record_fields(records[key]) for key in keys))
    blocks = {(line["attack"], line["block"]): line for path in files.time_parts() for line in read_times(path)}
    ordered = sorted(blocks, key=lambda key: (names.index(key[0]), key[1]))
    write_lines(files.times, (blocks[key] for key in ordered))
    note_seconds(files, sum(blocks[key]["seconds"] for key in ordered))
