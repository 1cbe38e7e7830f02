"""One draw after another from a model's randomness, whatever kind of model it is."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from ..contexts import drawing_from
from ..defense import Defense, is_plain
from ..randomness import derive_seed
from .checks import answered

Realize = Callable[[int, int, Tensor], Tensor]
SEEDED = {"seed", "image_ids"}
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FixedBatch": "model",
}
# What a pass costs beside its rows, on a CPU the packing of filters above all, on a GPU its launches, is little from
# about so many rows on. Large images are not repeated for it: pixels are what takes memory.
ROWS = {"cpu": 64, "cuda": 512}
PIXELS_A_ROW = 32 * 32


def realizer(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
    """The model at these images as a function (start, count, receiver) to logits (count * B, classes).

    Realization r of image b is in row r * B + b; gradients go to the same row of ``receiver``, which holds the images
    ``count`` times. A plain ``Defense`` projects and selects once for all realizations. Another model whose
    ``forward`` takes ``seed`` and ``image_ids`` is given a seed for each realization. What any model, or a part of
    it, draws from torch's generators follows from the realization as well, and leaves them as they were; what it
    draws for an image may then depend on the batch.

    Raises:
        TypeError: where the function is called, the model answers with something else than a tensor, or its numbers
            are of another type than the images, which it does not cast.
    """
    if is_plain(model):
        selection = model.encoder.select(images)

        def together(start: int, count: int, receiver: Tensor) -> Tensor:
            with drawing_from(derive_seed(seed, "realization", start), images.device), explaining_dtypes(model):
                return answered(model.realize(selection, seed, image_ids, start, count, receiver))

        return together

    given = {"image_ids": image_ids} if takes_seeds(model) else {}

    def one(rows: Tensor, realization: int) -> Tensor:
        own = derive_seed(seed, "realization", realization)
        with drawing_from(own, images.device), explaining_dtypes(model):
            return answered(model(rows, seed=own, **given) if given else model(rows))

    def one_by_one(start: int, count: int, receiver: Tensor) -> Tensor:
        return torch.cat([one(rows, start + number) for number, rows in enumerate(receiver.split(len(images)))])

    return one_by_one


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
    return max(1, min(rows, rows * PIXELS_A_ROW // (height * width)) // max(1, images))


def chunk_rule(model: nn.Module, chunk: int | None) -> int | str:
    """What decides ``realizations_at_once``, and bits with it: a number, or what each block is filled up to."""
    if chunk is not None:
        return chunk
    return f"{rows_at_once(model)} rows" if is_plain(model) else 1


def rows_at_once(model: nn.Module) -> int:
    assert isinstance(model, Defense)
    return ROWS.get(model.encoder.atoms.device.type, ROWS["cpu"])


def takes_seeds(model: nn.Module) -> bool:
    """Whether the model draws by seed and image id, as a ``Defense`` does."""
    try:
        return set(inspect.signature(unwrapped(model).forward).parameters) >= SEEDED
    except (ValueError, TypeError):  # a traced, loaded or frozen TorchScript module keeps no names
        return False


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within torch.compile's or a parallel wrapper, which pass on whatever they are given."""
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    return model


def batch_seed(model: nn.Module, seed: int, image_ids: Tensor) -> int:
    """The seed of a model's draws for a batch of images.

    One that draws by image id has the same for all batches. Any other is given one that follows from the first image
    id: with a single seed, the same few draws would decide a whole data set. Reads the id, which waits for a GPU.
    """
    return seed if takes_seeds(model) else derive_seed(seed, "batch", int(image_ids[0]))
