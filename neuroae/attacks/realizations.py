"""One draw after another from a model's randomness, whatever kind of model it is."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..contexts import drawing_from
from ..defense import Defense
from ..randomness import derive_seed
from .checks import answered

Realize = Callable[[int, int, Tensor], Tensor]
SEEDED = {"seed", "image_ids"}
# What a pass costs beside its rows, on a CPU the packing of filters above all, on a GPU its launches, is little from
# about so many rows on. Large images are not repeated for it: pixels are what takes memory.
ROWS = {"cpu": 64, "cuda": 512}
PIXELS_A_ROW = 32 * 32


def realizer(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
    """The model at these images as a function (start, count, receiver) to logits (count * B, classes).

    Realization r of image b is in row r * B + b; gradients go to the same row of ``receiver``, which holds the images
    ``count`` times. A ``Defense`` projects and selects once for all realizations. Another model whose ``forward``
    takes ``seed`` and ``image_ids`` is given a seed for each realization. Any other is called under a forked
    generator, whose seed follows from the realization; what it draws for an image may then depend on the batch.

    Raises:
        TypeError: where the function is called, the model answers with something else than a tensor.
    """
    if isinstance(model, Defense):
        selection = model.encoder.select(images)
        return lambda start, count, receiver: answered(
            model.realize(selection, seed, image_ids, start, count, receiver)
        )

    one = seeded if takes_seeds(model) else forked

    def run(start: int, count: int, receiver: Tensor) -> Tensor:
        seeds = [derive_seed(seed, "realization", start + number) for number in range(count)]
        rows = receiver.split(len(images))
        return torch.cat([one(model, row, each, image_ids) for row, each in zip(rows, seeds, strict=True)])

    return run


def realizations_at_once(model: nn.Module, chunk: int | None, shape: torch.Size) -> int:
    """``chunk``, or where that is None as many of a ``Defense`` as make 64 rows of 32 x 32 pixels, on a GPU 512, at
    least one.

    Memory is that of so many images then, or of the images where they are more. Of another model it is one
    realization: each is a call of its own, so that several take memory and save no time.

    Args:
        model: that draws.
        chunk: of the settings.
        shape: (B, C, H, W) of the images.
    """
    rule = chunk_rule(model, chunk)
    if isinstance(rule, int):
        return rule
    rows, (images, _, height, width) = rows_at_once(model), shape
    return max(1, min(rows // images, rows * PIXELS_A_ROW // (images * height * width)))


def chunk_rule(model: nn.Module, chunk: int | None) -> int | str:
    """What decides ``realizations_at_once``, and bits with it: a number, or what each block is filled up to."""
    if chunk is not None:
        return chunk
    return f"{rows_at_once(model)} rows" if isinstance(model, Defense) else 1


def rows_at_once(model: nn.Module) -> int:
    assert isinstance(model, Defense)
    return ROWS.get(model.encoder.atoms.device.type, ROWS["cpu"])


def takes_seeds(model: nn.Module) -> bool:
    """Whether the model draws by seed and image id, as a ``Defense`` does."""
    return set(inspect.signature(model.forward).parameters) >= SEEDED


def batch_seed(model: nn.Module, seed: int, image_ids: Tensor) -> int:
    """The seed of a model's draws for a batch of images.

    One that draws by image id has the same for all batches. Any other is given one that follows from the first image
    id: with a single seed, the same few draws would decide a whole data set. Reads the id, which waits for a GPU.
    """
    return seed if takes_seeds(model) else derive_seed(seed, "batch", int(image_ids[0]))


def seeded(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
    return answered(model(images, seed=seed, image_ids=image_ids))


def forked(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
    """One call of a model that draws from torch's generator, if it draws at all; the generator is left as it was."""
    with drawing_from(seed, images.device):
        return answered(model(images))
