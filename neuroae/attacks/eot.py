"""Expectation over transformation: gradients averaged over a model's own randomness (paper, eq. 5, section 5.1)."""

from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from ..utils.contexts import frozen
from ..utils.validation import check_integer
from .balls import unit_l2
from .checks import check_choice, check_inputs, check_logits, highest_class
from .losses import LOSS_NAMES, LOSSES, LossName, vote_margin, with_draw
from .protocol import Realize, offer, realizations_at_once, realizer

Average = Literal["normalized", "mean", "sign"]
AVERAGES = get_args(Average)


class GradientEstimate(NamedTuple):
    """
    Attributes:
        gradient: (B, C, H, W) float32, of each image's own loss.
        loss: (B,) float32, mean over the realizations where it is not NaN, minus infinity where it always is.
        margin: (B,) float32, of the log of the mean softmax output over the realizations: above 0 where they fool.
            NaN is left out in the same way.
        zero: (B,) int64, realizations whose gradient was zero throughout; they count for nothing in the direction.
        invalid: (B,) int64, realizations whose gradient held NaN or infinity; they are left out.
    """

    gradient: Tensor
    loss: Tensor
    margin: Tensor
    zero: Tensor
    invalid: Tensor


def eot_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    realizations: int,
    seed: int,
    image_ids: Tensor,
    start: int = 0,
    chunk: int | None = None,
    average: Average = "normalized",
    loss: LossName = "cross-entropy",
    targets: Tensor | None = None,
) -> GradientEstimate:
    """Gradient of the loss to the images, averaged over realizations of the model.

    Realizations are streamed a few at a time, so memory does not grow with their number; a ``Defense`` projects and
    selects once for all of them. No gradient to the model's parameters is computed.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits, in evaluation mode (see ``realizer`` for its randomness).
        images: float32 in [0, 1].
        labels: (B,) int64.
        realizations: N_E, independent draws of the model's randomness.
        seed: of the draws.
        image_ids: (B,) int64, the images' numbers in the draws.
        start: the first realization.
        chunk: realizations in memory at a time; None decides by the number of images (``realizations_at_once``).
        average: "normalized" is the paper's, the mean of gradients that were each divided by their l2 norm; "mean"
            is the plain mean; "sign" the mean of their signs. Under the surrogate "selection" gradients of
            realizations are divided, or reduced to signs, at the image that the decoder makes: there they part.
        loss: a key of ``LOSSES``.
        targets: (B,) int64, classes to be taken for; None is untargeted.
    """
    check_inputs(model, images, labels, image_ids, targets)
    check_choice("average", average, AVERAGES)
    check_choice("loss", loss, LOSS_NAMES)
    check_integer("realizations", realizations, 1)
    if chunk is not None:
        check_integer("chunk", chunk, 1)
    with frozen(model):
        return estimated(
            model,
            images.detach(),
            labels,
            targets,
            highest_class(labels, targets),
            realizations=realizations,
            seed=seed,
            image_ids=image_ids,
            start=start,
            chunk=chunk,
            average=average,
            loss=loss,
        )


def estimated(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    highest: int,
    *,
    realizations: int,
    seed: int,
    image_ids: Tensor,
    start: int = 0,
    chunk: int | None,
    average: Average,
    loss: LossName,
) -> GradientEstimate:
    """``eot_gradient`` of a frozen model and arguments that were checked, the highest class among labels and targets.

    An attack does either once and not in every step: reading the arguments makes a GPU wait.
    """
    if torch.is_inference_mode_enabled():
        # Nothing within it can leave it for the model's own tensors.
        raise RuntimeError("attacks need gradients, which torch.inference_mode rules out; leave it, no_grad may stay")
    losses = torch.zeros(len(images), dtype=torch.float32, device=images.device)
    counted = torch.zeros_like(losses)
    log_total: Tensor | None = None
    weigh = Weighing(average, len(images), images.device)
    gradient = gradient_of_realizations(model, images, seed, image_ids, weigh)
    at_once = realizations_at_once(model, chunk, images.shape)
    for first in range(start, start + realizations, at_once):
        count = min(at_once, start + realizations - first)
        chunk_results = add_realizations(gradient, labels, targets, highest, loss, first, count)
        for value, log_probabilities in zip(*(part.split(len(images)) for part in chunk_results), strict=True):
            is_number = ~value.isnan()
            losses += torch.where(is_number, value, 0)
            counted += is_number
            log_total = with_draw(log_total, log_probabilities)
    assert log_total is not None
    # Plus and minus infinity are NaN together, as none at all is.
    losses = torch.where((losses / counted).isnan(), -torch.inf, losses / counted)
    margin = vote_margin(log_total, labels, targets)
    return GradientEstimate(gradient.finish() / realizations, losses, margin, weigh.zero, weigh.invalid)


def add_realizations(
    gradient: "GradientOfRealizations",
    labels: Tensor,
    targets: Tensor | None,
    highest: int,
    loss: LossName,
    start: int,
    count: int,
) -> tuple[Tensor, Tensor]:
    """Takes in a few realizations; returns their losses, (count * B,), and log-probabilities, without a graph."""
    with torch.enable_grad():
        logits = gradient.logits(start, count)
        check_logits(logits, count * len(labels), highest)
        logits = logits.float()
        repeated = None if targets is None else targets.repeat(count)
        losses = LOSSES[loss](logits, labels.repeat(count), repeated)
    gradient.add(losses)
    return losses.detach(), logits.detach().log_softmax(-1)


class Weighing:
    """What the gradients of realizations add to their sum, and how many are of no use.

    Attributes:
        zero, invalid: (B,) int64, so far (see ``GradientEstimate``).
    """

    def __init__(self, average: Average, images: int, device: torch.device) -> None:
        self.average = average
        self.zero = torch.zeros(images, dtype=torch.int64, device=device)
        self.invalid = torch.zeros_like(self.zero)

    def __call__(self, gradients: Tensor) -> Tensor:
        """From (count * B, C, H, W), one realization after another, to the same shape; 0 for those of no use."""
        return torch.cat([self.weigh_one(gradient) for gradient in gradients.split(len(self.zero))])

    def weigh_one(self, gradient: Tensor) -> Tensor:
        peak = gradient.abs().amax((1, 2, 3))
        valid = peak.isfinite()
        self.zero += peak == 0
        self.invalid += ~valid
        return torch.where(valid[:, None, None, None], weighed(gradient, peak, self.average), 0)


class GradientOfRealizations(Protocol):
    """How a model's realizations become one gradient. A model may offer its own by a method ``shared_gradient``.

    That method takes (images, seed, image_ids, weigh) and returns such an object, or None where it has nothing to
    offer. ``weigh`` is a ``Weighing``; it sees the gradients of realizations where the object lets them meet.
    """

    def logits(self, start: int, count: int) -> Tensor:
        """(count * B, classes) of realizations start .. start + count - 1, realization r of image b in r * B + b."""

    def add(self, losses: Tensor) -> None:
        """Takes in the gradients of the latest logits' losses, (count * B,)."""

    def finish(self) -> Tensor:
        """(B, C, H, W) float32, the sum over realizations at the images."""


class GradientsAtImages:
    """Of any model: the gradient of every realization goes all the way to the images, and is weighed there."""

    def __init__(self, realize: Realize, images: Tensor, weigh: Weighing) -> None:
        self.realize, self.images, self.weigh = realize, images, weigh
        self.total = torch.zeros_like(images)

    def logits(self, start: int, count: int) -> Tensor:
        self.receiver = self.images.repeat(count, 1, 1, 1).requires_grad_()
        return self.realize(start, count, self.receiver)

    def add(self, losses: Tensor) -> None:
        gradients = torch.zeros_like(self.receiver)
        if losses.requires_grad:  # a model may have no gradient at all, as a comparison has none
            ones = torch.ones_like(losses)
            (gradients,) = torch.autograd.grad(losses, self.receiver, ones, allow_unused=True, materialize_grads=True)
        for gradient in self.weigh(gradients).split(len(self.images)):
            self.total += gradient
        del self.receiver

    def finish(self) -> Tensor:
        return self.total


def gradient_of_realizations(
    model: nn.Module, images: Tensor, seed: int, image_ids: Tensor, weigh: Weighing
) -> GradientOfRealizations:
    """The model's own way where it has one, and otherwise that of any model."""
    shared: GradientOfRealizations | None = offer(model, "shared_gradient", images, seed, image_ids, weigh)
    return GradientsAtImages(realizer(model, images, seed, image_ids), images, weigh) if shared is None else shared


def weighed(gradient: Tensor, peak: Tensor, average: Average) -> Tensor:
    """What one realization adds to the sum; ``peak`` is the largest entry of each image's gradient."""
    if average == "normalized":
        return unit_l2(gradient, peak)
    return gradient.sign() if average == "sign" else gradient
