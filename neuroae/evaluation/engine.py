"""The engine: an evaluation in a folder, which may be stopped at any moment, goes on, and is shared by processes."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import processes
from ..contexts import repeatable
from ..storage import claimed, replacing, watched
from ..versions import note_versions
from .attack import Perturbation
from .block import craft, judge
from .evaluation import Evaluation
from .files import Files, load_images, save_images
from .lines import append_lines, sealed
from .manifest import (
    STAMP_DIGITS,
    identity,
    load_manifest,
    note_seconds,
    open_manifest,
    require_agreement,
    require_manifest,
)
from .progress import Bar
from .records import Record, append_records, read_records, read_times, record_line
from .results import Results, load_evaluation

Known = dict[tuple[str, int], Record]


def run_evaluation(evaluation: Evaluation, folder: str | Path) -> Results:
    """Crafts and scores what the folder lacks, and returns all of it.

    Stopped at any moment and called again with the same evaluation, it does what is missing, and ends with the
    records of a run that was not stopped. Under ``processes.group`` the processes share the blocks; the number of
    them changes nothing in the records.

    Raises:
        ValueError: the folder belongs to an evaluation with other settings; the message says which. Or the processes
            were started with different evaluations.
        BlockingIOError: another run is at work in the folder.
        FolderReplacedError: the folder was removed or replaced while this run was at work in it.
    """
    folder = Path(folder)
    asked = identity(evaluation)
    require_agreement(asked, evaluation.device)
    with repeatable(), claimed(folder) if processes.is_first() else nullcontext():
        complete(Files(folder), evaluation, asked)
    return load_evaluation(folder)


def complete(files: Files, evaluation: Evaluation, asked: dict[str, Any]) -> None:
    """Does what is missing in the folder."""
    if processes.is_first():
        files.remove_leftovers()
        open_manifest(files, evaluation, asked)
    files = replace(files, stamp=shared_stamp(files, evaluation.device))
    known = read_known(files) if processes.is_first() else {}
    missing = missing_blocks(files, evaluation, known)
    if processes.is_first() and bool(missing.any()):
        note_versions(files.manifest, load_manifest(files))
    with nullcontext() if processes.is_first() else watched(files.folder):
        work(files, evaluation, share(missing), known)
    processes.wait_for_all()
    if processes.is_first():
        merge(files, evaluation)
    processes.wait_for_all()


def shared_stamp(files: Files, device: torch.device) -> str:
    """The manifest's, which the first process tells the others; empty in folders of earlier versions."""
    stamp = load_manifest(files).get("stamp", "") if processes.is_first() else ""
    number = int(processes.total(torch.tensor(int(stamp or "0", 16)), device).item())
    return f"{number:0{STAMP_DIGITS}x}" if number else ""


def read_known(files: Files) -> Known:
    """Records that are there, by attack and image."""
    records = (record for path in files.record_parts() for record in read_records(path, files.stamp))
    return {(record.attack, record.image): record for record in records}


def missing_blocks(files: Files, evaluation: Evaluation, known: Known) -> torch.Tensor:
    """(attacks, blocks) int64, 1 where records or images are missing or damaged: what the first process finds."""
    missing = torch.zeros(len(evaluation.all_attacks), evaluation.blocks, dtype=torch.int64)
    if processes.is_first():
        for row, attack in enumerate(evaluation.all_attacks):
            for block in range(evaluation.blocks):
                missing[row, block] = not is_done(files, evaluation, attack.name, block, known)
        forget(files, evaluation, missing, known)
    return processes.total(missing, evaluation.device).cpu()


def forget(files: Files, evaluation: Evaluation, missing: torch.Tensor, known: Known) -> None:
    """Removes records and times of blocks that are made again: of two, nothing says which is the newer."""
    blocks = {(evaluation.all_attacks[row].name, block) for row, block in missing.nonzero().tolist()}
    images = {(attack, image) for attack, block in blocks for image in evaluation.part(block).ids.tolist()}
    if images.intersection(known):
        for path in filter(Path.exists, files.record_parts()):
            kept = [
                record for record in read_records(path, files.stamp) if (record.attack, record.image) not in images
            ]
            write_lines(path, map(record_line, kept))
    for path in filter(Path.exists, files.time_parts()):
        times = read_times(path)
        lasting = [line for line in times if (line["attack"], line["block"]) not in blocks]
        if len(lasting) < len(times):
            write_lines(path, map(sealed, lasting))


def is_done(files: Files, evaluation: Evaluation, attack: str, block: int, known: Known) -> bool:
    ids = evaluation.part(block).ids
    if any((attack, image) not in known for image in ids.tolist()):
        return False
    try:
        load_images(files.images(attack, block), ids, files.stamp)
    except (OSError, ValueError):
        return False
    return True


def share(missing: torch.Tensor) -> list[list[int]]:
    """This process's blocks of each attack."""
    mine: list[list[int]] = [[] for _ in missing]
    for attack, block in missing.nonzero()[processes.rank() :: processes.world_size()].tolist():
        mine[attack].append(block)
    return mine


def work(files: Files, evaluation: Evaluation, mine: list[list[int]], known: Known) -> None:
    for attack, blocks in zip(evaluation.all_attacks, mine, strict=True):
        if not blocks:
            continue
        with bar(evaluation, attack, blocks, known) as progress:
            for block in blocks:
                finish_block(files, evaluation, attack, block, progress)


def bar(evaluation: Evaluation, attack: Perturbation, blocks: list[int], known: Known) -> Bar:
    """Of this process's images, and those that are done already."""
    todo = {image for block in blocks for image in evaluation.part(block).ids.tolist()}
    done = [record for (name, image), record in known.items() if name == attack.name and image not in todo]
    right = sum(record.vote == record.label for record in done)
    shared = f" (1 of {processes.world_size()} processes)" if processes.world_size() > 1 else ""
    title = f"{evaluation.name}: {attack.name}{shared}"
    return Bar(title, attack, len(todo) + len(done), len(done), right)


def finish_block(files: Files, evaluation: Evaluation, attack: Perturbation, block: int, progress: Bar) -> None:
    """Images first and records last: a block whose records are there is whole."""
    started = time.perf_counter()
    part, rank = evaluation.load(block), processes.rank()
    found = craft(attack, evaluation.model, part, evaluation.scoring, progress.crafting)
    require_manifest(files)
    save_images(files.images(attack.name, block), found.images, part.ids, files.stamp)
    judged = judge(evaluation.model, attack.name, part, found, evaluation.scoring)
    records = [replace(record, stamp=files.stamp) for record in judged]
    require_manifest(files)
    took = {"attack": attack.name, "block": block, "seconds": time.perf_counter() - started}
    append_lines(files.time_part(rank), [took])
    append_records(files.record_part(rank), records)
    progress.scored(len(records), sum(record.vote == record.label for record in records))


def merge(files: Files, evaluation: Evaluation) -> None:
    """Writes the files of all records and times, in order, unless they are there already.

    Raises:
        FileNotFoundError: records are missing, as they may be for a while on a folder that machines share.
    """
    names = [attack.name for attack in evaluation.all_attacks]
    known = read_known(files)
    wanted = [(name, image) for name in names for image in evaluation.data.ids.tolist()]
    absent = sum(key not in known for key in wanted)
    if absent:
        raise FileNotFoundError(f"{files.folder} lacks {absent:,} records yet; start the evaluation again to go on")
    write_lines(files.records, (record_line(known[key]) for key in wanted))
    taken = {(line["attack"], line["block"]): line for path in files.time_parts() for line in read_times(path)}
    ordered = sorted(taken, key=lambda key: (names.index(key[0]), key[1]))
    write_lines(files.times, (sealed(taken[key]) for key in ordered))
    note_seconds(files, sum(taken[key]["seconds"] for key in ordered))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    text = "".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
