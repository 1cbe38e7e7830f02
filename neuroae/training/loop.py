"""The training loop: SGD over a task's parameters, checkpointed and resumed."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import ImageSet
from ..dictionary import dictionary_digest
from ..nn.encoder import SparseEncoder
from ..utils import distributed
from ..utils.contexts import autocast, drawing_from
from ..utils.files import claimed, remove_leftovers
from ..utils.modules import structure
from ..utils.progress import progress_bar
from ..utils.randomness import derive_seed
from .batches import Batch, as_json_gives_it_back, batches, check_images, check_task, steps_per_epoch
from .checkpoint import Position, Trained, load_checkpoint, save_checkpoint
from .history import Epoch, Meter
from .settings import TrainingSettings

VALIDATION_BATCH = 64
# Between two looks at the loss, each of which waits for a GPU.
SHOWN_SECONDS = 0.1


@dataclass(frozen=True)
class Run:
    """Where a training keeps its state, so that it can be stopped at any moment and go on.

    Attributes:
        folder: for checkpoints, ``checkpoint-STAGE.safetensors``.
        seconds: between two of them; there is one at the end of every epoch as well.
        identity: what JSON holds and must be the same when the run goes on, beside stage, settings, data, validation,
            model and atoms, which need no mention.
        report: called with this stage's epochs so far: when it goes on, and after each epoch.
        held: the caller has claimed the folder, for longer than the training takes.
    """

    folder: str | Path
    seconds: float = 60.0
    identity: dict[str, Any] | None = None
    report: Callable[[list[Epoch]], None] = lambda _: None
    held: bool = False


def fit(
    task: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    stage: str,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """Minimizes a task over its parameters that ask for gradients; it ends in evaluation mode.

    Args:
        task: see ``tasks``.
        data: the training images.
        settings: of the optimizer, the schedule and the draws.
        stage: what is trained: names the progress, the checkpoint and the stream of masks.
        run: None keeps nothing on disk.
        validation: images that are scored after every epoch, by one realization, and not learned from.

    Raises:
        BlockingIOError: another run is at work in the folder.
        TypeError: the model answers with something else than a tensor, or the run's identity is nothing for JSON.
        ValueError: there are no images, or nothing to learn; the model's classes are not theirs, or what the folder
            holds belongs to another run.
    """
    check_images("data", data)
    if validation is not None:
        check_images("validation", validation)
    check_task(task, data, settings)
    if validation is not None:
        check_task(task, validation, settings)
    identity = as_json_gives_it_back("run.identity", run.identity or {}) if run else {}
    with claimed(Path(run.folder)) if run and not run.held and distributed.is_first() else nullcontext():
        return run_epochs(task, data, settings, stage, run, identity, validation)


def apart(identity: dict[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Refuses what would take the place of the training's own identity."""
    for name in own:
        if name in identity:
            raise ValueError(f"run.identity holds {name!r}, expected another name: the training keeps its own {name}")
    return identity


def require_one_position(position: Position, device: torch.device) -> None:
    """Refuses processes that see different checkpoints, as on machines without a folder in common."""
    own = torch.tensor([position.epoch, position.step])
    if not torch.equal(distributed.total(own, device).cpu(), own * distributed.world_size()):
        raise ValueError(f"processes stand at different steps, this one at {own.tolist()}: all must see one folder")


def run_epochs(
    task: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    stage: str,
    run: Run | None,
    identity: dict[str, Any],
    validation: ImageSet | None,
) -> list[Epoch]:
    device = next(task.parameters()).device
    trained = start(task, settings, steps_per_epoch(data, settings))
    path = Path(run.folder) / f"checkpoint-{stage}.safetensors" if run else None
    own = {
        "stage": stage,
        "settings": asdict(settings),
        "data": data.fingerprint(),
        "validation": validation.fingerprint() if validation else None,
        "model": structure(task),
        # No step changes them, and a checkpoint would put its own in their place.
        "atoms": [dictionary_digest(part.atoms) for part in task.modules() if isinstance(part, SparseEncoder)],
    }
    identity = own | apart(identity, own)
    position = Position()
    if path and path.exists():
        position = load_checkpoint(path, trained, identity, settings, len(data))
    require_one_position(position, device)
    if path and distributed.is_first():
        remove_leftovers(path)

    def save() -> None:
        if path and distributed.is_first():
            save_checkpoint(path, trained, position, identity)

    def report() -> None:
        if run and distributed.is_first() and position.history:
            run.report(position.history)

    report()
    module = distributed.parallel(task)
    done = position.epoch * len(data) + position.meter.seen
    with progress_bar(total=settings.epochs * len(data), initial=done, desc=stage, unit="img") as progress:

        def show() -> float:
            position.meter.read()
            progress.set_postfix(position.meter.shown() | {"epoch": position.epoch + 1}, refresh=False)
            progress.update(position.epoch * len(data) + position.meter.seen - progress.n)
            return time.monotonic()

        saved = shown = time.monotonic()
        while position.epoch < settings.epochs:
            task.train()
            started = time.monotonic()
            for batch in batches(data, settings, stage, position.epoch, device, position.step):
                step(module, trained, batch, settings.precision, position.meter)
                position.step += 1
                # Several processes end at the same step where the loss is not finite.
                if distributed.world_size() > 1 or time.monotonic() - shown > SHOWN_SECONDS:
                    shown = show()
                if run and time.monotonic() - saved > run.seconds:
                    shown = show()
                    position.meter.seconds += shown - started
                    save()
                    saved = started = time.monotonic()
            shown = show()
            position.meter.seconds += shown - started
            finish_epoch(task, trained, position, settings, stage, validation)
            save()
            saved = time.monotonic()
            report()
    task.eval()
    return position.history


def start(task: nn.Module, settings: TrainingSettings, steps_an_epoch: int) -> Trained:
    optimizer = torch.optim.SGD(
        [parameter for parameter in task.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    steps = settings.epochs * steps_an_epoch
    # A triangle of one step would be its foot, where nothing is learned.
    if settings.schedule == "constant" or steps == 1:
        return Trained(task, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0))
    rising = max(1, steps // 2)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer,
        base_lr=0.0,
        max_lr=settings.learning_rate,
        step_size_up=rising,
        step_size_down=max(1, steps - rising),
        cycle_momentum=False,
    )
    return Trained(task, optimizer, scheduler)


def step(module: nn.Module, trained: Trained, batch: Batch, precision: str, meter: Meter) -> None:
    with model_draws(batch):
        with autocast(precision, batch.images.device):
            loss, logits = module(batch.images, batch.labels, batch.ids, batch.seed)
        trained.optimizer.zero_grad(set_to_none=True)
        (loss * batch.weight).backward()
    trained.optimizer.step()
    trained.scheduler.step()
    meter.add(loss, logits, batch.labels, batch.weight)


def model_draws(batch: Batch) -> AbstractContextManager[None]:
    """What a model draws from torch's generators follows from the step and the process, as its masks do.

    A run that goes on needs no state of theirs, and no two processes draw alike.
    """
    return drawing_from(derive_seed(batch.seed, "model", distributed.rank()), batch.images.device)


def finish_epoch(
    task: nn.Module,
    trained: Trained,
    position: Position,
    settings: TrainingSettings,
    stage: str,
    validation: ImageSet | None,
) -> None:
    """Moves the position to the next epoch, with this one in its history."""
    # What is scored is what the first process saves; after a step the others have statistics of their own.
    distributed.share_buffers(task)
    meter = position.meter
    scored = None if validation is None else score(task, validation, settings, stage, position.epoch)
    epoch = Epoch(
        stage,
        position.epoch + 1,
        float(trained.scheduler.get_last_lr()[0]),
        meter.mean_loss,
        meter.accuracy,
        meter.seen / meter.seconds,
        scored.mean_loss if scored else None,
        scored.accuracy if scored else None,
    )
    position.epoch, position.step = position.epoch + 1, 0
    position.history.append(epoch)
    position.meter = Meter()


@torch.no_grad()
def score(task: nn.Module, validation: ImageSet, settings: TrainingSettings, stage: str, epoch: int) -> Meter:
    """The task on images that it does not learn from, in evaluation mode and float32, with masks of their own."""
    device = next(task.parameters()).device
    task.eval()
    meter = Meter()
    unchanged = TrainingSettings(epochs=1, batch_size=VALIDATION_BATCH, seed=settings.seed)
    for batch in batches(validation, unchanged, f"{stage} validation", epoch, device):
        with model_draws(batch):
            loss, logits = task(batch.images, batch.labels, batch.ids, batch.seed)
        meter.add(loss, logits, batch.labels, batch.weight)
    meter.read()
    return meter
