"""Expectation over transformation: gradients averaged over a model's own randomness (paper, eq. 5, section 5.1)."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contexts import frozen
from ..defense import Defense
from ..randomness import derive_seed

Average = Literal["normalized", "mean"]
AVERAGES = get_args(Average)

Realize = Callable[[int, int, Tensor], Tensor]


class GradientEstimate(NamedTuple):
    """
    Attributes:
        gradient: (B, C, H, W) float32, of each image's own loss.
        passes: forward and backward passes, counted in images times realizations.
        zero: realizations of an image whose gradient was zero throughout; they count for nothing in the direction.
        invalid: realizations of an image whose gradient held NaN or infinity; they are left out.
    """

    gradient: Tensor
    passes: int
    zero: int
    invalid: int


def eot_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    realizations: int,
    seed: int,
    image_ids: Tensor,
    start: int = 0,
    chunk: int = 1,
    average: Average = "normalized",
) -> GradientEstimate:
    """Gradient of the cross-entropy to the images, averaged over realizations of the model.

    Realizations are streamed ``chunk`` at a time, so memory does not grow with their number; a ``Defense`` projects
    and selects once for all of them. No gradient to the model's parameters is computed.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits, in evaluation mode.
        images: float32 in [0, 1].
        labels: (B,) int64.
        realizations: N_E, independent draws of the model's randomness.
        seed: of the draws.
        image_ids: (B,) int64, the images' numbers in the draws.
        start: the first realization.
        chunk: realizations in memory at a time.
        average: "normalized" is the paper's, the mean of gradients that were each divided by their l2 norm;
            "mean" is the plain mean.
    """
    if average not in AVERAGES:
        raise ValueError(f"average is {average!r}, expected one of {', '.join(AVERAGES)}")
    if realizations < 1 or chunk < 1:
        raise ValueError(f"realizations is {realizations} and chunk {chunk}, expected at least 1")
    if model.training:
        raise ValueError("model is in training mode, expected evaluation mode; call model.eval()")
    batch = len(images)
    total = torch.zeros_like(images)
    zero = torch.zeros((), dtype=torch.int64, device=images.device)
    invalid = torch.zeros_like(zero)
    with frozen(model):
        realize = realizer(model, images, seed, image_ids)
        for first in range(start, start + realizations, chunk):
            count = min(chunk, start + realizations - first)
            for gradient in realization_gradients(realize, images, labels, first, count).split(batch):
                peak = gradient.abs().amax((1, 2, 3))
                usable = peak.isfinite() & (peak > 0)
                zero += (peak == 0).sum()
                invalid += (~peak.isfinite()).sum()
                if average == "normalized":
                    gradient = unit(gradient, peak)
                total += torch.where(usable[:, None, None, None], gradient, 0)
    return GradientEstimate(total / realizations, batch * realizations, int(zero), int(invalid))


def unit(gradient: Tensor, peak: Tensor) -> Tensor:
    """Each gradient over its l2 norm, by way of its largest entry: squares of a confident model's would underflow."""
    scaled = gradient / peak[:, None, None, None]
    return scaled / scaled.flatten(1).norm(dim=1)[:, None, None, None]


def realization_gradients(realize: Realize, images: Tensor, labels: Tensor, start: int, count: int) -> Tensor:
    """(count * B, C, H, W): the gradient of each realization of each image, of the loss of that one alone."""
    receiver = images.repeat(count, 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        logits = realize(start, count, receiver)
        loss = F.cross_entropy(logits.float(), labels.repeat(count), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, receiver)
    return gradient


def realizer(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
    """The model at these images as a function of realizations (start, count) and a tensor that receives gradients."""
    if isinstance(model, Defense):
        selection = model.encoder.select(images)
        return lambda start, count, receiver: model.realize(selection, seed, image_ids, start, count, receiver)

    def run(start: int, count: int, receiver: Tensor) -> Tensor:
        rows = receiver.split(len(images))
        return torch.cat([seeded(model, rows[number], seed, start + number) for number in range(count)])

    return run


def seeded(model: nn.Module, images: Tensor, seed: int, realization: int) -> Tensor:
    """One call of a model that draws from torch's generator, if it draws at all; the generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "realization", realization))
        return model(images)
