"""What attacks ask of a model, and what a model may offer to make them fast.

Any module from images to logits can be attacked. ``AttackableModel`` lists what a model may offer beside that; a
``Defense`` offers all of it, and a model of one's own may implement any part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..utils.contexts import drawing_from
from ..utils.modules import takes_seeds
from ..utils.randomness import derive_seed
from .checks import answered

Realize = Callable[[int, int, Tensor], Tensor]
PIXELS_A_ROW = 32 * 32


class AttackableModel(Protocol):
    """What a model may offer to attacks. Each method is looked for by its name and may be missing.

    A model whose ``forward`` takes ``seed`` and ``image_ids`` draws by them: attacks then know that an image's draws
    do not depend on its batch.
    """

    def rows_at_once(self) -> int | None:
        """How many images of 32 x 32 pixels, realizations counted, fill the device; None where ``realizer`` gives
        nothing."""

    def realizer(self, images: Tensor, seed: int, image_ids: Tensor) -> Realize | None:
        """Many realizations of what is computed once for these images, (B, C, H, W) in [0, 1]; see ``realizer`` below.

        None where the model has nothing to share, and is called once a realization like any other.
        """

    def shared_gradient(self, images: Tensor, seed: int, image_ids: Tensor, weigh: Callable[[Tensor], Tensor]) -> Any:
        """One gradient of many realizations at less than the price of each, or None (``GradientOfRealizations``)."""


def offer(model: nn.Module, name: str, *arguments: Any) -> Any:
    """What the model's method of that name returns, None where it has none."""
    method = getattr(model, name, None)
    return None if method is None else method(*arguments)


def realizer(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
    """The model at these images as a function (start, count, receiver) to logits (count * B, classes).

    Realization r of image b is in row r * B + b; gradients go to the same row of ``receiver``, which holds the images
    ``count`` times. A model that offers a ``realizer``, as a ``Defense`` does, shares work among realizations. Another
    whose ``forward`` takes ``seed`` and ``image_ids`` is given a seed for each realization. What any model draws from
    torch's generators follows from the realization as well, and leaves them as they were; what it draws for an image
    may then depend on the batch.

    Raises:
        TypeError: where the function is called, the model answers with something else than a tensor, or its numbers
            are of another type than the images, which it does not cast.
    """
    together: Realize | None = offer(model, "realizer", images, seed, image_ids)
    if together is not None:
        return drawn_together(model, together, seed, images.device)

    given = {"image_ids": image_ids} if takes_seeds(model) else {}

    def one(rows: Tensor, realization: int) -> Tensor:
        own = derive_seed(seed, "realization", realization)
        with drawing_from(own, images.device), explaining_dtypes(model):
            return answered(model(rows, seed=own, **given) if given else model(rows))

    def one_by_one(start: int, count: int, receiver: Tensor) -> Tensor:
        return torch.cat([one(rows, start + number) for number, rows in enumerate(receiver.split(len(images)))])

    return one_by_one


def drawn_together(model: nn.Module, realize: Realize, seed: int, device: torch.device) -> Realize:
    """A model's own ``realizer``, with torch's generators seeded by the first realization of a call."""

    def together(start: int, count: int, receiver: Tensor) -> Tensor:
        with drawing_from(derive_seed(seed, "realization", start), device), explaining_dtypes(model):
            return answered(realize(start, count, receiver))

    return together


@contextmanager
def explaining_dtypes(model: nn.Module) -> Iterator[None]:
    """Says what to do where a model of half or double precision stumbles over images in float32."""
    try:
        yield
    except RuntimeError as error:
        tensors = chain(model.parameters(), model.buffers())
        others = sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()} - {"torch.float32"})
        if others and "type" in str(error):
            raise TypeError(
                f"model is in {', '.join(others)} and does not cast images, which are in torch.float32: call "
                "model.float(), or put it into a module that casts them, and the logits back"
            ) from error
        raise


def realizations_at_once(model: nn.Module, chunk: int | None, shape: torch.Size) -> int:
    """How many realizations are in memory at a time, at least one.

    ``chunk``, or where that is None as many as fill the rows that the model offers (``rows_at_once``; large images
    count as several rows). Of a model that offers none it is one: each realization is a call of its own, so that
    several would take memory and save no time.

    Args:
        model: The model that draws.
        chunk: The attack's setting.
        shape: (B, C, H, W) of the images.
    """
    rule = chunk_rule(model, chunk)
    if isinstance(rule, int):
        return rule
    rows, (images, _, height, width) = offer(model, "rows_at_once"), shape
    return max(1, min(rows, rows * PIXELS_A_ROW // (height * width)) // max(1, images))


def chunk_rule(model: nn.Module, chunk: int | None) -> int | str:
    """What decides ``realizations_at_once``, and bits with it: a number, or the rows that a block fills."""
    if chunk is not None:
        return chunk
    rows = offer(model, "rows_at_once")
    return 1 if rows is None else f"{rows} rows"


def batch_seed(model: nn.Module, seed: int, image_ids: Tensor) -> int:
    """The seed of a model's draws for a batch of images.

    One that draws by image id has the same for all batches. Any other is given one that follows from the first image
    id: with a single seed, the same few draws would decide a whole data set. Reads the id, which waits for a GPU.
    """
    return seed if takes_seeds(model) else derive_seed(seed, "batch", int(image_ids[0]))
