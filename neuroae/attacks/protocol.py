"""What attacks need of a model, and what a model may offer to make attacks faster.

Attacks take any ``nn.Module`` from images (B, C, H, W) float32 in [0, 1] to logits (B, classes), in evaluation mode.
They call it once for each realization. Nothing else is needed.

A random model should take ``seed`` and ``image_ids`` in its ``forward``, and draw by these alone::

    def forward(self, images: Tensor, seed: int, image_ids: Tensor) -> Tensor

Then an image has the same draws in every batch. Otherwise attacks seed torch's generators for each realization, and
the draws for an image may depend on its batch.

A random model that draws by torch's generators, each row of a batch independently, may offer ``rows_at_once`` alone:
attacks then show it several realizations in one call.

A model in which realizations of the same images share work may offer the methods of ``AttackableModel``. Each of them
is looked up by its name and may be missing. ``neuroae.Defense`` offers all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..utils.contexts import drawing_realization
from ..utils.modules import takes_seeds
from ..utils.randomness import derive_seed
from .checks import require_tensor

# A function of (start, count, receiver) to logits; see ``AttackableModel.realizer``.
Realize = Callable[[int, int, Tensor], Tensor]
PIXELS_PER_ROW = 32 * 32


class NormalizeGradients(Protocol):
    """The attack's function from gradients of realizations to their terms in the sum.

    It divides each gradient by its l2 norm, takes its sign or leaves it, as the attack's ``average`` says. It replaces
    gradients with NaN or infinity by 0. It also counts these and zero gradients, so every gradient must pass exactly
    once.
    """

    def __call__(self, gradients: Tensor) -> Tensor:
        """Normalizes gradients.

        Args:
            gradients: (count * B, C, H, W) float32. Realization r of image b is in row r * B + b. C, H and W may be
                those of any image-like tensor inside the model.

        Returns:
            The terms, of the same shape.
        """


class GradientOfRealizations(Protocol):
    """The gradient of the losses of many realizations, computed a few realizations at a time.

    Attacks call ``logits`` and ``add`` in turn until all realizations are done, and then ``finish`` once.
    """

    def logits(self, start: int, count: int) -> Tensor:
        """Returns the logits of realizations start .. start + count - 1, with autograd's graph.

        Returns:
            (count * B, classes), realization r of image b in row (r - start) * B + b.
        """

    def add(self, losses: Tensor) -> None:
        """Adds the gradients of losses (count * B,), computed from the latest logits, to the sum.

        Losses of a model without a gradient have no graph; their gradients are zero, and are normalized all the same,
        so that they are counted.
        """

    def finish(self) -> Tensor:
        """Returns the sum of the normalized gradients at the images, (B, C, H, W) float32."""


class AttackableModel(Protocol):
    """The methods that a model may offer to attacks. Each of them may be missing.

    Offer ``rows_at_once`` alone if the model draws by torch's generators and independently for each row. Offer
    ``realizer`` and ``rows_at_once`` if several realizations of the same images are cheaper together than one
    by one, as where they share a projection. Offer ``shared_gradient`` too if they also share a part of the backward
    pass. ``tests/attacks/test_protocol.py`` has a small model with all three.
    """

    def rows_at_once(self) -> int | None:
        """Returns how many rows (images times realizations) of 32 x 32 pixels fill the device.

        Attacks draw so many realizations at once that their rows reach this number; larger images count as several
        rows. None, or a missing method, draws one realization at a time.
        """

    def realizer(self, images: Tensor, seed: int, image_ids: Tensor) -> Realize | None:
        """Computes what realizations of these images share, and returns the function that draws realizations.

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            seed: The seed of all draws.
            image_ids: (B,) int64, the images' numbers in the draws.

        Returns:
            A function of (start, count, receiver) to the logits (count * B, classes) of realizations start ..
            start + count - 1, realization r of image b in row (r - start) * B + b. The logits of a realization depend
            on its number, the seed and the image ids alone, not on ``start`` and ``count``. ``receiver`` holds the
            images ``count`` times, (count * B, C, H, W); the gradient of a row of logits must go to the same row of
            ``receiver``. None has the attack call the model once for each realization.
        """

    def shared_gradient(
        self, images: Tensor, seed: int, image_ids: Tensor, normalize: NormalizeGradients
    ) -> GradientOfRealizations | None:
        """Returns an object that computes one gradient of many realizations, cheaper than their separate gradients.

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            seed: The seed of all draws.
            image_ids: (B,) int64, the images' numbers in the draws.
            normalize: Call it once on the gradient of each realization, at the place where the model adds
                realizations up. Any linear map may follow.

        Returns:
            The object. None has the attack compute a separate gradient at the images for each realization.
        """


def realizer(model: nn.Module, images: Tensor, seed: int | Tensor, image_ids: Tensor) -> Realize:
    """Returns the function that draws realizations of any model (see ``AttackableModel.realizer``).

    Uses the model's own ``realizer`` where it offers one. Otherwise it calls the model once for each realization, with
    a seed for that realization if its ``forward`` takes ``seed`` and ``image_ids``; a model without seeds that offers
    ``rows_at_once`` is called once for all of them. Torch's generators are seeded for each call as well, and are
    afterwards as before. A seed in a tensor is for models that draw by it alone, and seeds no generators.

    The returned function raises TypeError where the model returns no tensor, or has another dtype than the images and
    does not cast them.
    """
    realize: Realize | None = call_optional(model, "realizer", images, seed, image_ids)
    if realize is not None:
        return seeded_realizer(model, realize, seed, images.device)

    is_seeded = takes_seeds(model)
    if not is_seeded and call_optional(model, "rows_at_once") is not None:
        return seeded_realizer(model, lambda start, count, receiver: model(receiver), seed, images.device)

    def realize_one(rows: Tensor, realization: int) -> Tensor:
        draws = {}
        if is_seeded:
            draws = {"seed": derive_seed(int(seed), "realization", realization), "image_ids": image_ids}
        with drawing_realization(seed, realization, images.device), explaining_dtypes(model):
            return require_tensor(model(rows, **draws))

    def realize_each(start: int, count: int, receiver: Tensor) -> Tensor:
        batches = receiver.split(len(images))
        return torch.cat([realize_one(rows, start + number) for number, rows in enumerate(batches)])

    return realize_each


def realizations_at_once(model: nn.Module, chunk: int | None, shape: torch.Size) -> int:
    """Returns how many realizations are in memory at a time, at least one.

    Args:
        model: The attacked model.
        chunk: The attack's setting. None takes as many as fill the model's ``rows_at_once``, or one of a model that
            does not offer it: there each realization is a call, so that more would take memory and save no time.
        shape: The shape of the images, (B, C, H, W).
    """
    rule = chunk_rule(model, chunk)
    if isinstance(rule, int):
        return rule
    rows, (num_images, _, height, width) = call_optional(model, "rows_at_once"), shape
    return max(1, min(rows, rows * PIXELS_PER_ROW // (height * width)) // max(1, num_images))


def chunk_rule(model: nn.Module, chunk: int | None) -> int | str:
    """Returns what ``realizations_at_once`` goes by: a number of realizations, or the rows in words.

    Manifests keep it, since the number of rows in a pass decides the last bits of results.
    """
    if chunk is not None:
        return chunk
    rows = call_optional(model, "rows_at_once")
    return 1 if rows is None else f"{rows} rows"


def batch_seed(model: nn.Module, seed: int, image_ids: Tensor) -> int:
    """Returns the seed of a model's draws for a batch of images.

    A model that draws by image id has the same seed in all batches. For any other the seed also depends on the first
    image id: otherwise all batches of a data set would share the same few draws. Reading the id waits for a GPU.
    """
    return seed if takes_seeds(model) else derive_seed(seed, "batch", int(image_ids[0]))


def call_optional(model: nn.Module, name: str, *arguments: Any) -> Any:
    """Returns the result of a model's method, None where the model has no such method."""
    method = getattr(model, name, None)
    return None if method is None else method(*arguments)


def seeded_realizer(model: nn.Module, realize: Realize, seed: int | Tensor, device: torch.device) -> Realize:
    """Returns a model's own function, with torch's generators seeded by the first realization of each call."""

    def realize_seeded(start: int, count: int, receiver: Tensor) -> Tensor:
        with drawing_realization(seed, start, device), explaining_dtypes(model):
            return require_tensor(realize(start, count, receiver))

    return realize_seeded


@contextmanager
def explaining_dtypes(model: nn.Module) -> Iterator[None]:
    """Turns the error of a model in half or double precision that gets float32 images into advice."""
    try:
        yield
    except RuntimeError as error:
        tensors = chain(model.parameters(), model.buffers())
        others = sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()} - {"torch.float32"})
        if others and "type" in str(error):
            raise TypeError(
                f"model is in {', '.join(others)} and does not cast images, which are in torch.float32: call "
                "model.float(), or put it into a module that casts the images, and the logits back"
            ) from error
        raise
