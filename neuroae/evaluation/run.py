"""Accuracy of a model in memory, clean or under one attack."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..attacks import Perturbed
from ..attacks.balls import BALLS
from ..data import ImageSet
from ..utils import distributed
from ..utils.contexts import repeatable
from ..utils.files import claimed, replacing, watched
from ..utils.progress import progress_bar
from ..utils.versions import note_versions
from .attack import Attack, Perturbation, Progress
from .folder import Files, append_lines, load_images, save_images, sealed
from .manifest import (
    STAMP_DIGITS,
    identity,
    load_manifest,
    note_seconds,
    open_manifest,
    require_agreement,
    require_manifest,
)
from .plan import Evaluation
from .records import Record, append_records, read_records, read_times, record_line
from .results import Results, load_evaluation
from .scoring import Block, Scoring, answers, selection_margins
from .statistics import Accuracy, Estimate, mean_over_draws

# A block takes minutes, so the bar moves within it, by parts of images.
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Bar:
    """Counts images under an attack.

    Args:
        title: shown in front.
        attack: whose passes make the progress within a block.
        images: that are to be done, those included that were done before.
        done, right: images done before, and those of them that were answered rightly.
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
        """So many passes more of the block at hand, over all of its images."""
        self.bar.update(passes / self.passes)

    def scored(self, images: int, right: int) -> None:
        """The block at hand is done: so many images, and so many of them answered rightly."""
        self.done += images
        self.right += right
        self.show()
        self.bar.update(self.done - self.bar.n)

    def show(self) -> None:
        if self.done:
            self.bar.set_postfix(accuracy=f"{self.right / self.done:.1%}", refresh=False)


def craft(
    attack: Perturbation, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int
) -> Perturbed:
    """The block's images as the attack on the model leaves them: clipped to the box, in float32 as they are scored.

    Raises:
        FloatingPointError: the attack made a pixel that is not a number.
    """
    found = attack.craft(model, block, scoring, progress)
    if not bool(found.images.isfinite().all()):
        raise FloatingPointError(f"{attack.name} made pixels that are not finite")
    return found._replace(images=found.images.float().clamp(0, 1))


def judge(model: nn.Module, name: str, block: Block, found: Perturbed, scoring: Scoring) -> list[Record]:
    """What the model says to perturbed images: the records of an attack of this name, in the order of the block."""
    margins = selection_margins(model, found.images, block.labels, block.ids, scoring)
    said = answers(model, found.images, block.ids, scoring)
    norms = sizes(block.images, found.images)
    columns = {
        "image": block.ids,
        "label": block.labels,
        "vote": said.vote,
        "selection": margins,
        "linf": norms["linf"],
        "l2": norms["l2"],
        "zero": found.zero,
        "invalid": found.invalid,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        Record(
            attack=name,
            draws=tuple(draws),
            gradients=found.gradients,
            forwards=found.forwards,
            **dict(zip(columns, row, strict=True)),
        )
        for draws, row in zip(said.draws.T.tolist(), rows, strict=True)
    ]


def sizes(images: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
    """(B,) float64 norms of the perturbation, by the name of the norm."""
    offsets = perturbed.double() - images.double()
    return {norm: ball.size(offsets) for norm, ball in BALLS.items()}


Known = dict[tuple[str, int], Record]


def run_evaluation(evaluation: Evaluation, folder: str | Path) -> Results:
    """Crafts and scores what the folder lacks, and returns all of it.

    Stopped at any moment and called again with the same evaluation, it does what is missing, and ends with the
    records of a run that was not stopped. Under ``distributed.group`` the processes share the blocks; the number of
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
    with repeatable(), claimed(folder) if distributed.is_first() else nullcontext():
        complete(Files(folder), evaluation, asked)
    return load_evaluation(folder)


def complete(files: Files, evaluation: Evaluation, asked: dict[str, Any]) -> None:
    """Does what is missing in the folder."""
    if distributed.is_first():
        files.remove_leftovers()
        open_manifest(files, evaluation, asked)
    files = replace(files, stamp=shared_stamp(files, evaluation.device))
    known = read_known(files) if distributed.is_first() else {}
    missing = missing_blocks(files, evaluation, known)
    if distributed.is_first() and bool(missing.any()):
        note_versions(files.manifest, load_manifest(files))
    with nullcontext() if distributed.is_first() else watched(files.folder):
        work(files, evaluation, share(missing), known)
    distributed.wait_for_all()
    if distributed.is_first():
        merge(files, evaluation)
    distributed.wait_for_all()


def shared_stamp(files: Files, device: torch.device) -> str:
    """The manifest's, which the first process tells the others; empty in folders of earlier versions."""
    stamp = load_manifest(files).get("stamp", "") if distributed.is_first() else ""
    number = int(distributed.total(torch.tensor(int(stamp or "0", 16)), device).item())
    return f"{number:0{STAMP_DIGITS}x}" if number else ""


def read_known(files: Files) -> Known:
    """Records that are there, by attack and image."""
    records = (record for path in files.record_parts() for record in read_records(path, files.stamp))
    return {(record.attack, record.image): record for record in records}


def missing_blocks(files: Files, evaluation: Evaluation, known: Known) -> torch.Tensor:
    """(attacks, blocks) int64, 1 where records or images are missing or damaged: what the first process finds."""
    missing = torch.zeros(len(evaluation.all_attacks), evaluation.blocks, dtype=torch.int64)
    if distributed.is_first():
        for row, attack in enumerate(evaluation.all_attacks):
            for block in range(evaluation.blocks):
                missing[row, block] = not is_done(files, evaluation, attack.name, block, known)
        forget(files, evaluation, missing, known)
    return distributed.total(missing, evaluation.device).cpu()


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
    for attack, block in missing.nonzero()[distributed.rank() :: distributed.world_size()].tolist():
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
    shared = f" (1 of {distributed.world_size()} processes)" if distributed.world_size() > 1 else ""
    title = f"{evaluation.name}: {attack.name}{shared}"
    return Bar(title, attack, len(todo) + len(done), len(done), right)


def finish_block(files: Files, evaluation: Evaluation, attack: Perturbation, block: int, progress: Bar) -> None:
    """Images first and records last: a block whose records are there is whole."""
    started = time.perf_counter()
    part, rank = evaluation.load(block), distributed.rank()
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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the images under one attack, or without one.

    Attributes:
        name: of the attack, or "clean".
        images: (N, C, H, W) float32 in [0, 1], as they were scored.
        predictions: (N,) int64, of the E draws as one vote.
        draws: (E, N) int64, what each draw says by itself.
        labels: (N,) int64.
        seconds: crafting and scoring.
        passes: gradient passes, in images times realizations.
        zero, invalid: realizations without a usable gradient (see ``GradientEstimate``).
    """

    name: str
    images: Tensor
    predictions: Tensor
    draws: Tensor
    labels: Tensor
    seconds: float
    passes: int = 0
    zero: int = 0
    invalid: int = 0

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy.of(self.predictions, self.labels)

    @property
    def draw(self) -> Estimate:
        """Accuracy of one draw, E = 1: the mean over the draws, with a bootstrap over images."""
        return mean_over_draws(self.draws, self.labels)


def evaluate(
    model: nn.Module,
    data: ImageSet,
    attack: Attack | None = None,
    *,
    ensemble: int = 10,
    seed: int = 0,
    block: int = 64,
    title: str = "",
) -> Outcome:
    """Scores the model on the images as they are, or as an attack leaves them, and keeps nothing on disk.

    Images go in blocks of ``block`` in the order of the data. Scoring draws masks that no attack saw; for one seed
    they are the same with and without an attack.

    Args:
        model: images in [0, 1] to logits, in evaluation mode.
        data: the images.
        attack: None scores the clean images.
        ensemble: E, realizations that vote on an image (eq. 8).
        seed: of all draws.
        block: images in a batch.
        title: shown with the progress.
    """
    attacks: list[Perturbation] = [] if attack is None else [attack]
    evaluation = Evaluation(model, data, attacks, Scoring(ensemble, seed), block)
    chosen = evaluation.all_attacks[-1]
    images, said, passes, zero, invalid = [], [], 0, 0, 0
    started = time.perf_counter()
    with repeatable(), Bar(f"{title}: {chosen.name}" if title else chosen.name, chosen, len(data)) as bar:
        for number in range(evaluation.blocks):
            part = evaluation.load(number)
            found = craft(chosen, model, part, evaluation.scoring, bar.crafting)
            draws, vote = answers(model, found.images, part.ids, evaluation.scoring)
            bar.scored(len(vote), int((vote == part.labels).sum()))
            images.append(found.images.cpu())
            said.append(torch.cat([vote[None], draws]).cpu())
            passes += found.gradients * len(vote)
            zero += int(found.zero.sum())
            invalid += int(found.invalid.sum())
    seconds = time.perf_counter() - started
    votes, draws = torch.cat(said, 1).split([1, ensemble])
    return Outcome(chosen.name, torch.cat(images), votes[0], draws, data.labels, seconds, passes, zero, invalid)
