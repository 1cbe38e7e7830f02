"""What a gradient costs: K in the paper's computational budget C = K N_S N_R N_E (section 8.7)."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..attacks import SquareSettings, eot_gradient
from ..contexts import autocast
from ..defense import Defense
from .attack import Attack, Perturbation
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
