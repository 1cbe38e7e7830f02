"""What is to be evaluated, in one value."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import nn

from ..attacks import SquareSettings, eot_gradient
from ..attacks.checks import check_mode
from ..data import ImageSet
from ..nn.defense import Defense
from ..utils.contexts import autocast
from ..utils.validation import check_integer
from .attack import Attack, Clean, Perturbation
from .folder import slug
from .scoring import Block, Scoring

IMAGES = 16
REALIZATIONS = 4
ROUNDS = 5


def relative_cost(attack: Perturbation, block: Block, scoring: Scoring) -> float | None:
    """Seconds of one gradient pass of the attack's source over those of its classifier alone, in the same precision.

    A source that is not a ``Defense`` has no smaller part to compare with: 1. An attack without gradients has no
    such cost: None. The passes are real, with the attack's own loss, so one that the model cannot give fails here.
    """
    if not isinstance(attack, Attack) or isinstance(attack.settings, SquareSettings):
        return None
    few = Block(*(tensor[:IMAGES] for tensor in block))
    crafting = attack.crafting_model(scoring, few.ids)
    if not isinstance(attack.source, Defense):
        passes(attack, crafting, few)
        return 1.0
    classifier = attack.source.classifier
    with torch.no_grad():
        decoded = attack.source.autoencode(few.images, 0, few.ids).float().clamp(0, 1)
    seen = few._replace(images=decoded)
    runs = [lambda: passes(attack, crafting, few), lambda: passes(attack, classifier, seen)]
    whole, alone = least_seconds(runs, few.images.device)
    return whole / alone


def passes(attack: Attack, model: nn.Module, block: Block) -> None:
    assert not isinstance(attack.settings, SquareSettings)
    with autocast(attack.precision, block.images.device):
        eot_gradient(
            model,
            block.images,
            block.labels,
            realizations=REALIZATIONS,
            seed=0,
            image_ids=block.ids,
            # The classifier alone answers one realization at a time, too.
            chunk=1,
            loss=attack.settings.loss,
        )


def least_seconds(runs: Sequence[Callable[[], None]], device: torch.device) -> list[float]:
    """Of each run when nothing else was at work, or least was: they take turns, after one that warms up."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed(run: Callable[[], None]) -> float:
        start = clock()
        run()
        return clock() - start

    rounds = [[timed(run) for run in runs] for _ in range(1 + ROUNDS)]
    return [min(each) for each in zip(*rounds[1:], strict=True)]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model, images and attacks.

    Attributes:
        model: that is attacked: images in [0, 1] to logits, in evaluation mode.
        data: the images; their ids differ.
        attacks: ``Attack`` or ``ReadyMade``, with names that differ; the clean images come first without being asked.
        scoring: what decides the draws.
        block: images that are crafted and scored together. Results depend on it, if only in the last bits that
            convolutions give.
        name: the model's, for tables.
    """

    model: nn.Module
    data: ImageSet
    attacks: Sequence[Perturbation]
    scoring: Scoring = field(default_factory=Scoring)
    block: int = 64
    name: str = "model"

    def __post_init__(self) -> None:
        check_mode("model", self.model)
        check_integer("block", self.block, 1)
        if not len(self.data) or len(self.data.ids.unique()) < len(self.data):
            raise ValueError(f"data holds {len(self.data)} images, expected at least one, and ids that differ")
        names = [attack.name for attack in self.all_attacks]
        if len({slug(name) for name in names}) < len(names) or not all(map(slug, names)):
            raise ValueError(f"attacks are named {', '.join(names)}; expected names that differ in letters or digits")
        for name in names:
            if not name.isprintable():
                raise ValueError(f"an attack is named {name!r}, expected a name without control characters")
        if self.scoring.deterministic:
            self.refuse_ensembles()

    def refuse_ensembles(self) -> None:
        for attack in self.attacks:
            if isinstance(attack, Attack) and attack.variant == "ensemble":
                raise ValueError(f"{attack.name} is on an ensemble, which makes no sense where masks are fixed")

    @property
    def all_attacks(self) -> list[Perturbation]:
        """Without perturbation first, and then as asked."""
        return [Clean(), *self.attacks]

    @property
    def blocks(self) -> int:
        return -(-len(self.data) // self.block)

    def part(self, block: int) -> ImageSet:
        """The images of a block."""
        return self.data.take(slice(block * self.block, (block + 1) * self.block))

    def load(self, block: int) -> Block:
        """A block on the model's device."""
        return Block.of(self.part(block), self.device)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters and buffers are; the CPU for one without any."""
        return device_of(self.model)


def device_of(model: nn.Module) -> torch.device:
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
