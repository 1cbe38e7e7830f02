"""Accuracy of a model, clean and under attacks, block of images by block."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..attacks import PGDSettings, mean_probabilities, pgd
from ..contexts import autocast
from ..data import ImageSet
from ..progress import progress_bar
from ..randomness import derive_seed
from .statistics import Accuracy

CLEAN = "clean"


@dataclass(frozen=True)
class Attack:
    """An attack to be evaluated.

    Attributes:
        name: shown in tables; the seeds of its draws follow from it, so names in one evaluation should differ.
        source: the model whose gradients are used; the attacked one, or another for a transfer attack.
        settings: of PGD.
        precision: of the source's decoder and classifier while crafting; scoring is in float32 always.
    """

    name: str
    source: nn.Module
    settings: PGDSettings
    precision: str = "float32"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the images under one attack, or without one.

    Attributes:
        name: of the attack, or "clean".
        images: (N, C, H, W) float32 in [0, 1], as they were scored.
        predictions: (N,) int64.
        labels: (N,) int64.
        seconds: crafting and scoring.
        passes: gradient passes, in images times realizations.
        zero, invalid: realizations without a usable gradient (see ``GradientEstimate``).
    """

    name: str
    images: Tensor
    predictions: Tensor
    labels: Tensor
    seconds: float
    passes: int = 0
    zero: int = 0
    invalid: int = 0

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy.of(self.predictions, self.labels)


@dataclass
class Tally:
    """An outcome in the making."""

    images: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    passes: int = 0
    zero: int = 0
    invalid: int = 0


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
    """Scores the model on the images as they are, or as an attack leaves them.

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
    name = CLEAN if attack is None else attack.name
    device = next(model.parameters(), torch.empty(0)).device
    masks = derive_seed(seed, "scoring")
    tally = Tally()
    started = time.perf_counter()
    total, unit = (len(data), "img") if attack is None else (len(data) * attack.settings.passes, "gradient")
    with progress_bar(total=total, desc=f"{title}: {name}" if title else name, unit=unit) as progress:
        for part in blocks(data, block):
            images, labels, ids = (tensor.to(device) for tensor in (part.pixels(), part.labels, part.ids))
            if attack is not None:
                images = craft(attack, images, labels, ids, seed, tally, progress.update)
            predictions = mean_probabilities(model, images, ensemble, masks, ids).argmax(-1)
            tally.images.append(images.cpu())
            tally.predictions.append(predictions.cpu())
            seen = torch.cat(tally.predictions)
            progress.set_postfix(accuracy=f"{Accuracy.of(seen, data.labels[: len(seen)]).value:.1%}", refresh=False)
            progress.update(len(part) if attack is None else 0)
    return Outcome(
        name,
        torch.cat(tally.images),
        torch.cat(tally.predictions),
        data.labels,
        time.perf_counter() - started,
        tally.passes,
        tally.zero,
        tally.invalid,
    )


def blocks(data: ImageSet, size: int) -> Iterator[ImageSet]:
    if size < 1:
        raise ValueError(f"block is {size}, expected at least 1")
    for start in range(0, len(data), size):
        yield data.take(slice(start, start + size))


def craft(
    attack: Attack,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    seed: int,
    tally: Tally,
    progress: Callable[[int], object],
) -> Tensor:
    with autocast(attack.precision, images.device):
        found = pgd(
            attack.source,
            images,
            labels,
            attack.settings,
            seed=derive_seed(seed, f"craft {attack.name}"),
            image_ids=ids,
            progress=progress,
        )
    tally.passes += found.passes
    tally.zero += found.zero
    tally.invalid += found.invalid
    return found.images
