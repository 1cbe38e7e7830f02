"""Expectation over transformation: gradients averaged over a model's own randomness (paper, eq. 5, section 5.1)."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..contexts import frozen
from ..encoder import check_integer
from .balls import unit_l2
from .checks import check_choice, check_inputs, check_logits, highest_class
from .losses import LOSS_NAMES, LOSSES, LossName
from .prediction import vote_margin, with_draw
from .realizations import Realize, realizations_at_once, realizer

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
            is the plain mean; "sign" the mean of their signs.
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
    total = torch.zeros_like(images)
    losses = torch.zeros(len(images), dtype=torch.float32, device=images.device)
    counted = torch.zeros_like(losses)
    log_total: Tensor | None = None
    zero = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    invalid = torch.zeros_like(zero)
    realize = realizer(model, images, seed, image_ids)
    at_once = realizations_at_once(model, chunk, images.shape)
    for first in range(start, start + realizations, at_once):
        count = min(at_once, start + realizations - first)
        found = realization_gradients(realize, images, labels, targets, highest, loss, first, count)
        for gradient, value, log_probabilities in zip(*(part.split(len(images)) for part in found), strict=True):
            peak = gradient.abs().amax((1, 2, 3))
            valid = peak.isfinite()
            zero += peak == 0
            invalid += ~valid
            total += torch.where(valid[:, None, None, None], weighed(gradient, peak, average), 0)
            told = ~value.isnan()
            losses += torch.where(told, value, 0)
            counted += told
            log_total = with_draw(log_total, log_probabilities)
    assert log_total is not None
    # Plus and minus infinity are NaN together, as none at all is.
    losses = torch.where((losses / counted).isnan(), -torch.inf, losses / counted)
    return GradientEstimate(total / realizations, losses, vote_margin(log_total, labels, targets), zero, invalid)


def weighed(gradient: Tensor, peak: Tensor, average: Average) -> Tensor:
    """What one realization adds to the sum; ``peak`` is the largest entry of each image's gradient."""
    if average == "normalized":
        return unit_l2(gradient, peak)
    return gradient.sign() if average == "sign" else gradient


def realization_gradients(
    realize: Realize,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    highest: int,
    loss: LossName,
    start: int,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each realization of each image by itself: (count * B, C, H, W) gradients, losses, log-probabilities.

    Raises:
        RuntimeError: within ``torch.inference_mode``, which nothing within it can leave for the model's own tensors.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients, which torch.inference_mode rules out; leave it, no_grad may stay")
    receiver = images.repeat(count, 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        logits = realize(start, count, receiver)
        check_logits(logits, len(receiver), highest)
        logits = logits.float()
        repeated = None if targets is None else targets.repeat(count)
        values = LOSSES[loss](logits, labels.repeat(count), repeated)
        total = values.sum()
    if not total.requires_grad:  # the model has no gradient at all, as a comparison has none
        return torch.zeros_like(receiver), values, logits.log_softmax(-1)
    (gradients,) = torch.autograd.grad(total, receiver, allow_unused=True, materialize_grads=True)
    return gradients, values.detach(), logits.detach().log_softmax(-1)
