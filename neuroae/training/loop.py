"""The training loop: SGD over the parameters of a task, with checkpoints from which it resumes."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ..data import ImageSet
from ..dictionary import dictionary_digest
from ..nn.encoder import SparseEncoder
from ..utils import distributed
from ..utils.contexts import drawing_from, tuned_convolutions
from ..utils.files import claimed, remove_leftovers
from ..utils.modules import structure
from ..utils.progress import progress_bar
from ..utils.randomness import derive_seed
from .batches import Batch, batches, check_images, check_task, steps_per_epoch
from .checkpoint import Position, TrainingState, load_checkpoint, save_checkpoint, through_json
from .gradients import Gradients
from .history import Epoch, Meter
from .settings import DECAY, TrainingSettings

VALIDATION_BATCH = 64
# The seconds between two readings of the loss. Each reading waits for the GPU.
SHOW_SECONDS = 0.1
# The entries that the loop adds to a run's identity.
IDENTITY = ("stage", "settings", "data", "validation", "model", "atoms")


@dataclass(frozen=True)
class Run:
    """Where a training keeps its state, so that it can be stopped at any moment and resumed.

    Attributes:
        folder: The folder for checkpoints, ``checkpoint-STAGE.safetensors``.
        seconds: The time between two checkpoints. There is also one at the end of every epoch.
        identity: Values that must be the same when the run is resumed, as JSON can hold them. Stage, settings, data,
            validation images, model and atoms are always compared.
        report: A function that gets this stage's epochs so far, when the training resumes and after every epoch.
        held: Whether the caller has claimed the folder already, since it works there for longer than the training.
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
    """Minimizes the loss of a task over its parameters that require gradients, and leaves it in evaluation mode.

    Args:
        task: A module from images, labels, ids and a seed to an ``Objective``, such as the tasks in ``methods``.
        data: The training images.
        settings: Optimizer, schedule and seed.
        stage: The name of what is trained, for the progress bar, the checkpoint and the stream of masks.
        run: Where checkpoints are saved; None saves none.
        validation: Images that are scored after every epoch, with one realization, and not learned from.

    Returns:
        The epochs, including those before a stop.

    Raises:
        BlockingIOError: Another run has claimed the folder.
        FloatingPointError: The loss became infinite or NaN.
        TypeError: The model's output is not a tensor, or JSON cannot hold the run's identity.
        ValueError: There are no images or nothing to learn, the model has other classes than the images, or the folder
            belongs to another run.
    """
    check_images("data", data)
    if validation is not None:
        check_images("validation", validation)
    check_task(task, data, settings)
    if validation is not None:
        check_task(task, validation, settings)
    if run is not None:
        check_identity(run.identity or {})
    with claimed(Path(run.folder)) if run and not run.held and distributed.is_first() else nullcontext():
        return Loop(task, data, settings, stage, run, validation).execute()


def check_identity(identity: dict[str, Any]) -> None:
    """Refuses a run's identity that JSON cannot hold, or that uses names of the loop's entries.

    Raises:
        TypeError: JSON cannot hold it.
        ValueError: It holds one of the loop's names.
    """
    for name in IDENTITY:
        if name in identity:
            raise ValueError(f"run.identity holds {name!r}, expected another name: the training sets {name} itself")
    through_json("run.identity", identity)


class Loop:
    """The epochs of one stage.

    Args:
        task, data, settings, stage, run, validation: The arguments of ``fit``.
    """

    def __init__(
        self,
        task: nn.Module,
        data: ImageSet,
        settings: TrainingSettings,
        stage: str,
        run: Run | None,
        validation: ImageSet | None,
    ) -> None:
        self.task, self.data, self.settings, self.stage = task, data, settings, stage
        self.run, self.validation = run, validation
        self.device = next(task.parameters()).device
        self.path = Path(run.folder) / f"checkpoint-{stage}.safetensors" if run else None
        self.identity = self.make_identity()
        self.state = make_state(task, settings, steps_per_epoch(data, settings))
        self.position = Position()
        # When progress was last shown, and when a checkpoint was last saved.
        self.shown_time = self.saved_time = 0.0

    def make_identity(self) -> dict[str, Any]:
        """Returns the values that must be the same when the run is resumed."""
        values = (
            self.stage,
            asdict(self.settings),
            self.data.fingerprint(),
            self.validation.fingerprint() if self.validation else None,
            structure(self.task),
            # Other atoms would go unnoticed: no step changes them, and loading a checkpoint replaces them.
            [dictionary_digest(part.atoms) for part in self.task.modules() if isinstance(part, SparseEncoder)],
        )
        identity = through_json("run.identity", (self.run.identity if self.run else None) or {})
        return dict(zip(IDENTITY, values, strict=True)) | identity

    def execute(self) -> list[Epoch]:
        """Trains from the last checkpoint to the last epoch, and returns all epochs."""
        self.resume()
        self.report()
        gradients = Gradients(distributed.parallelize(self.task), self.settings.precision)
        total = self.settings.epochs * len(self.data)
        progress_of_images = progress_bar(total=total, initial=self.images_done(), desc=self.stage, unit="img")
        with tuned_convolutions(), progress_of_images as progress:
            self.shown_time = self.saved_time = time.monotonic()
            while self.position.epoch < self.settings.epochs:
                self.learn_epoch(gradients, progress)
                finish_epoch(self.task, self.state, self.position, self.settings, self.stage, self.validation)
                self.save()
                self.report()
        self.task.eval()
        return self.position.history

    def resume(self) -> None:
        """Loads the checkpoint if there is one, and removes temporary files of earlier ones."""
        if self.path and self.path.exists():
            self.position = load_checkpoint(self.path, self.state, self.identity, self.settings, len(self.data))
        require_one_position(self.position, self.device)
        if self.path and distributed.is_first():
            remove_leftovers(self.path)

    def learn_epoch(self, gradients: Gradients, progress: tqdm) -> None:
        """Makes the remaining steps of the current epoch."""
        self.task.train()
        position, start = self.position, time.monotonic()
        for batch in batches(self.data, self.settings, self.stage, position.epoch, self.device, position.step):
            step(gradients, self.state, batch, position.meter)
            position.step += 1
            # Several processes read the loss in every step, so that all of them stop at once if it is not finite.
            if distributed.world_size() > 1 or time.monotonic() - self.shown_time > SHOW_SECONDS:
                self.show(progress)
            if self.run and time.monotonic() - self.saved_time > self.run.seconds:
                self.show(progress)
                position.meter.seconds += self.shown_time - start
                self.save()
                start = self.saved_time
        self.show(progress)
        position.meter.seconds += self.shown_time - start

    def show(self, progress: tqdm) -> None:
        """Reads the loss and updates the progress bar."""
        self.position.meter.read()
        progress.set_postfix(self.position.meter.summary() | {"epoch": self.position.epoch + 1}, refresh=False)
        progress.update(self.images_done() - progress.n)
        self.shown_time = time.monotonic()

    def save(self) -> None:
        """Writes a checkpoint, in the first process."""
        if self.path and distributed.is_first():
            save_checkpoint(self.path, self.state, self.position, self.identity)
        self.saved_time = time.monotonic()

    def report(self) -> None:
        """Reports the epochs so far, in the first process."""
        if self.run and distributed.is_first() and self.position.history:
            self.run.report(self.position.history)

    def images_done(self) -> int:
        """Returns the number of images that all epochs have learned from so far."""
        return self.position.epoch * len(self.data) + self.position.meter.seen


def require_one_position(position: Position, device: torch.device) -> None:
    """Refuses to train if processes have loaded different checkpoints, as on machines that share no folder.

    Raises:
        ValueError: The processes are at different steps.
    """
    place = torch.tensor([position.epoch, position.step])
    if not torch.equal(distributed.total(place, device).cpu(), place * distributed.world_size()):
        raise ValueError(f"processes stand at different steps, this one at {place.tolist()}: all must see one folder")


def make_state(task: nn.Module, settings: TrainingSettings, steps_per_epoch: int) -> TrainingState:
    """Returns the state before the first step."""
    optimizer = torch.optim.SGD(
        [parameter for parameter in task.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    steps = settings.epochs * steps_per_epoch
    # In a triangle of a single step the learning rate would be 0.
    if settings.schedule == "constant" or steps == 1:
        return TrainingState(task, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0))
    if settings.schedule == "stepwise":
        # Two steps of the same length end after the last step of the training, so that the rate falls once.
        return TrainingState(task, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, math.ceil(DECAY * steps)))
    rising = max(1, steps // 2)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer,
        base_lr=0.0,
        max_lr=settings.learning_rate,
        step_size_up=rising,
        step_size_down=max(1, steps - rising),
        cycle_momentum=False,
    )
    return TrainingState(task, optimizer, scheduler)


def step(gradients: Gradients, state: TrainingState, batch: Batch, meter: Meter) -> None:
    """Makes one step.

    Args:
        gradients: Computes loss, logits and gradients.
        state: The training's state, which the step changes.
        batch: This process's share of the step.
        meter: The meter that the step's loss is added to.
    """
    with model_draws(batch):
        loss, logits = gradients(batch)
    state.optimizer.step()
    state.scheduler.step()
    meter.add(loss, logits, batch.labels, batch.weight)


def model_draws(batch: Batch) -> AbstractContextManager[None]:
    """Seeds torch's generators, which a model may draw from, by the step and the process.

    So a checkpoint need not hold the generators' states, and no two processes draw the same numbers.
    """
    return drawing_from(derive_seed(batch.seed, "model", distributed.rank()), batch.images.device)


def finish_epoch(
    task: nn.Module,
    state: TrainingState,
    position: Position,
    settings: TrainingSettings,
    stage: str,
    validation: ImageSet | None,
) -> None:
    """Scores the validation images, adds the epoch to the history, and moves the position to the next epoch."""
    # Each process has its own running statistics after a step; the first one's are scored and saved.
    distributed.share_buffers(task)
    meter = position.meter
    scores = None if validation is None else score(task, validation, settings, stage, position.epoch)
    epoch = Epoch(
        stage=stage,
        number=position.epoch + 1,
        learning_rate=float(state.scheduler.get_last_lr()[0]),
        loss=meter.mean_loss,
        accuracy=meter.accuracy,
        images_per_second=meter.seen / meter.seconds,
        validation_loss=scores.mean_loss if scores else None,
        validation_accuracy=scores.accuracy if scores else None,
    )
    position.epoch, position.step = position.epoch + 1, 0
    position.history.append(epoch)
    position.meter = Meter()


@torch.no_grad()
def score(task: nn.Module, validation: ImageSet, settings: TrainingSettings, stage: str, epoch: int) -> Meter:
    """Scores the task on the validation images, in evaluation mode and float32, with masks of their own."""
    device = next(task.parameters()).device
    task.eval()
    meter = Meter()
    # These settings do not augment.
    scoring = TrainingSettings(epochs=1, batch_size=VALIDATION_BATCH, seed=settings.seed)
    for batch in batches(validation, scoring, f"{stage} validation", epoch, device):
        with model_draws(batch):
            loss, logits = task(batch.images, batch.labels, batch.ids, batch.seed)
        meter.add(loss, logits, batch.labels, batch.weight)
    meter.read()
    return meter
