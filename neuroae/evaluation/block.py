"""One block of images under one attack: crafted, and judged."""

from torch import Tensor, nn

from ..attacks import Perturbed
from ..attacks.balls import BALLS
from .attack import Perturbation, Progress
from .records import Record
from .scoring import Block, Scoring, answers, selection_margins


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
