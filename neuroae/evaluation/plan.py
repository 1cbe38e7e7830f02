"""What is to be evaluated, as one value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import nn

from ..attacks.checks import check_mode
from ..data import ImageSet
from ..utils.validation import check_integer
from .attack import Attack, Clean, Perturbation
from .folder import slug
from .scoring import Block, Scoring

LARGEST_BLOCK = 64


def even_block(images: int) -> int:
    """Returns the size of blocks for so many images: at most 64, and about equal, for processes that share them."""
    images = max(images, 1)
    blocks = -(-images // LARGEST_BLOCK)
    return -(-images // blocks)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model, images, attacks and how they are scored.

    Attributes:
        model: The attacked model, in evaluation mode, from (B, C, H, W) float32 images in [0, 1] to (B, classes)
            logits.
        data: The images, with ids that differ.
        attacks: The attacks, with names that differ. The clean images are scored in any case, before the attacks.
        scoring: The draws of the evaluation.
        block: Images that are crafted and scored together. Results depend on it in the last bits, since convolutions
            do.
        name: The model's name in tables.

    Raises:
        TypeError: ``block`` is not an integer.
        ValueError: The model is in training mode, there are no images, ids or names repeat, or an attack does not fit
            the scoring.
    """

    model: nn.Module
    data: ImageSet
    attacks: Sequence[Perturbation]
    scoring: Scoring = field(default_factory=Scoring)
    block: int = LARGEST_BLOCK
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
        """The clean images, and then the attacks."""
        return [Clean(), *self.attacks]

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-len(self.data) // self.block)

    def part(self, block: int) -> ImageSet:
        """Returns the images of the block with this number."""
        return self.data.take(slice(block * self.block, (block + 1) * self.block))

    def load(self, block: int) -> Block:
        """Returns the block with this number on the model's device."""
        return Block.of(self.part(block), self.device)

    @property
    def device(self) -> torch.device:
        """The device of the model (see ``device_of``)."""
        return device_of(self.model)


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's parameters and buffers; the CPU for a model without any."""
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
