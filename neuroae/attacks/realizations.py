"""One draw after another from a model's randomness, whatever kind of model it is."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..defense import Defense
from ..randomness import derive_seed

Realize = Callable[[int, int, Tensor], Tensor]
SEEDED = {"seed", "image_ids"}


def realizer(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
    """The model at these images as a function (start, count, receiver) to logits (count * B, classes).

    Realization r of image b is in row r * B + b; gradients go to the same row of ``receiver``, which holds the images
    ``count`` times. A ``Defense`` projects and selects once for all realizations. Another model whose ``forward``
    takes ``seed`` and ``image_ids`` is given a seed for each realization. Any other is called under a forked
    generator, whose seed follows from the realization; what it draws for an image may then depend on the batch.
    """
    if isinstance(model, Defense):
        selection = model.encoder.select(images)
        return lambda start, count, receiver: model.realize(selection, seed, image_ids, start, count, receiver)

    one = seeded if takes_seeds(model) else forked

    def run(start: int, count: int, receiver: Tensor) -> Tensor:
        seeds = [derive_seed(seed, "realization", start + number) for number in range(count)]
        rows = receiver.split(len(images))
        return torch.cat([one(model, row, each, image_ids) for row, each in zip(rows, seeds, strict=True)])

    return run


def takes_seeds(model: nn.Module) -> bool:
    """Whether the model draws by seed and image id, as a ``Defense`` does."""
    return set(inspect.signature(model.forward).parameters) >= SEEDED


def seeded(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
    logits: Tensor = model(images, seed=seed, image_ids=image_ids)
    return logits


def forked(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
    """One call of a model that draws from torch's generator, if it draws at all; the generator is left as it was."""
    generators = [torch.default_generator]
    if images.is_cuda:
        generators.append(torch.cuda.default_generators[images.device.index])
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        for generator in generators:
            generator.manual_seed(seed)
        logits: Tensor = model(images)
    return logits
