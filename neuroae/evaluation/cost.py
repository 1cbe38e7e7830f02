"""What a gradient costs: K in the paper's computational budget C = K N_S N_R N_E (section 8.7)."""

import time
from collections.abc import Callable

import torch
from torch import nn

from ..attacks import SquareSettings, eot_gradient
from ..contexts import autocast
from ..defense import Defense
from .attack import Attack, Perturbation
from .scoring import Block, Scoring

IMAGES = 16
REALIZATIONS = 4
RUNS = 3


def relative_cost(attack: Perturbation, block: Block, scoring: Scoring) -> float | None:
    """Seconds of one gradient pass of the attack's source over those of its classifier alone, in the same precision.

    A source that is not a ``Defense`` has no smaller part to compare with: 1. An attack without gradients has no
    such cost: None. The passes are real, with the attack's own loss, so one that the model cannot give fails here.
    """
    if not isinstance(attack, Attack) or isinstance(attack.settings, SquareSettings):
        return None
    few = Block(*(tensor[:IMAGES] for tensor in block))
    whole = seconds(attack, attack.crafting_model(scoring, few.ids), few)
    if not isinstance(attack.source, Defense):
        return 1.0
    return whole / seconds(attack, attack.source.classifier, few)


def seconds(attack: Attack, model: nn.Module, block: Block) -> float:
    """Of a gradient pass of the model: one realization of all images, of several that share their projection."""
    return timed(lambda: passes(attack, model, block), block.images.device) / REALIZATIONS


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


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of a run, whose work may still go on on a GPU when its calls are back."""
    # Only here: merely importing it makes torch warn wherever CUDA's toolkit is installed and no GPU is.
    from torch.utils.benchmark import Timer

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    timer = Timer("run()", globals={"run": run}, timer=clock, num_threads=torch.get_num_threads())
    return timer.timeit(RUNS).mean
