"""EOT, expectation over transformation: gradients averaged over a model's randomness (paper, eq. 5, section 5.1)."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..utils.contexts import frozen
from ..utils.validation import check_integer
from .balls import unit_l2
from .checks import check_choice, check_inputs, check_logits, highest_class
from .losses import LOSS_NAMES, LOSSES, LossName, add_log_probabilities, vote_margin
from .protocol import (
    GradientOfRealizations,
    NormalizeGradients,
    Realize,
    call_optional,
    realizations_at_once,
    realizer,
)

Average = Literal["normalized", "mean", "sign"]
AVERAGES = get_args(Average)


class GradientEstimate(NamedTuple):
    """An average over realizations.

    Attributes:
        gradient: (B, C, H, W) float32, the gradient of each image's own loss.
        loss: (B,) float32, the mean loss over the realizations where it is not NaN; minus infinity where it is NaN in
            all of them.
        margin: (B,) float32, the margin of the log of the mean softmax output over the realizations, above 0 where
            the vote is fooled. NaN is left out in the same way.
        zero: (B,) int64, the number of realizations whose gradient was zero everywhere. They add nothing.
        invalid: (B,) int64, the number of realizations whose gradient held NaN or infinity. They are left out.
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
    """Computes the gradient of the loss to the images, averaged over realizations of the model.

    Realizations are computed a few at a time, so memory does not grow with their number. A model that offers the
    methods of ``AttackableModel``, such as a ``Defense``, shares work among them. Parameters get no gradient.

    Args:
        model: The attacked model, from images in [0, 1] to logits, in evaluation mode. ``neuroae.attacks.protocol``
            says how its randomness is seeded.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        realizations: The number of independent draws of the model's randomness, N_E.
        seed: The seed of the draws.
        image_ids: (B,) int64, the images' numbers in the draws.
        start: The first realization.
        chunk: The number of realizations in memory at a time; None decides by the model and the number of images
            (``realizations_at_once``).
        average: "normalized" is the paper's: the mean of gradients divided by their l2 norms. "mean" is the plain
            mean, "sign" the mean of their signs. A model's ``shared_gradient`` may normalize gradients at another
            place than the images: a ``Defense`` with the surrogate "selection" does it at the decoded image.
        loss: A key of ``LOSSES``.
        targets: (B,) int64, the target classes; None is untargeted.

    Raises:
        TypeError, ValueError: An argument does not fit (see ``check_inputs``), or the model returns no logits.
        RuntimeError: ``torch.inference_mode`` is on, under which there are no gradients.
    """
    check_inputs(model, images, labels, image_ids, targets)
    check_choice("average", average, AVERAGES)
    check_choice("loss", loss, LOSS_NAMES)
    check_integer("realizations", realizations, 1)
    if chunk is not None:
        check_integer("chunk", chunk, 1)
    with frozen(model):
        return estimate_gradient(
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


def estimate_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    highest: int,
    *,
    realizations: int,
    seed: int | Tensor,
    image_ids: Tensor,
    start: int = 0,
    chunk: int | None,
    average: Average,
    loss: LossName,
) -> GradientEstimate:
    """Computes ``eot_gradient`` of a frozen model, without checks of the arguments.

    Attacks freeze the model and check once, not in every step: reading the arguments makes a GPU wait. ``highest`` is
    the highest class among labels and targets. A seed in a tensor is for models that draw by it alone.
    """
    if torch.is_inference_mode_enabled():
        # No context inside inference mode makes tensors that were created in it differentiable.
        raise RuntimeError("attacks need gradients, which torch.inference_mode rules out; leave it, no_grad may stay")
    loss_sum = torch.zeros(len(images), dtype=torch.float32, device=images.device)
    num_losses = torch.zeros_like(loss_sum)
    log_sum: Tensor | None = None
    normalize = GradientNormalizer(average, len(images), images.device)
    gradient = gradient_of_realizations(model, images, seed, image_ids, normalize)
    at_once = realizations_at_once(model, chunk, images.shape)
    for first in range(start, start + realizations, at_once):
        count = min(at_once, start + realizations - first)
        results = add_realizations(gradient, labels, targets, highest, loss, first, count)
        for values, log_probabilities in zip(*(part.split(len(images)) for part in results), strict=True):
            is_number = ~values.isnan()
            loss_sum += torch.where(is_number, values, 0)
            num_losses += is_number
            log_sum = add_log_probabilities(log_sum, log_probabilities)
    assert log_sum is not None
    # NaN where there is no loss, and where plus and minus infinity meet.
    mean_loss = loss_sum / num_losses
    mean_loss = torch.where(mean_loss.isnan(), -torch.inf, mean_loss)
    margin = vote_margin(log_sum, labels, targets)
    return GradientEstimate(gradient.finish() / realizations, mean_loss, margin, normalize.zero, normalize.invalid)


def add_realizations(
    gradient: GradientOfRealizations,
    labels: Tensor,
    targets: Tensor | None,
    highest: int,
    loss: LossName,
    start: int,
    count: int,
) -> tuple[Tensor, Tensor]:
    """Adds realizations start .. start + count - 1 to a gradient.

    Returns:
        Their losses, (count * B,), and log-probabilities, (count * B, classes), without a graph.
    """
    with torch.enable_grad():
        logits = gradient.logits(start, count)
        check_logits(logits, count * len(labels), highest)
        logits = logits.float()
        repeated_targets = None if targets is None else targets.repeat(count)
        losses = LOSSES[loss](logits, labels.repeat(count), repeated_targets)
    gradient.add(losses)
    return losses.detach(), logits.detach().log_softmax(-1)


def gradient_of_realizations(
    model: nn.Module, images: Tensor, seed: int | Tensor, image_ids: Tensor, normalize: NormalizeGradients
) -> GradientOfRealizations:
    """Returns the model's own ``shared_gradient``, or else separate gradients at the images."""
    shared: GradientOfRealizations | None = call_optional(model, "shared_gradient", images, seed, image_ids, normalize)
    if shared is not None:
        return shared
    return GradientsAtImages(realizer(model, images, seed, image_ids), images, normalize)


class GradientsAtImages:
    """The gradient of any model's realizations: each goes back to the images, and is normalized and added up there.

    Implements ``GradientOfRealizations``.
    """

    def __init__(self, realize: Realize, images: Tensor, normalize: NormalizeGradients) -> None:
        self.realize, self.images, self.normalize = realize, images, normalize
        self.total = torch.zeros_like(images)

    def logits(self, start: int, count: int) -> Tensor:
        self.receiver = self.images.repeat(count, 1, 1, 1).requires_grad_()
        return self.realize(start, count, self.receiver)

    def add(self, losses: Tensor) -> None:
        gradients = torch.zeros_like(self.receiver)
        if losses.requires_grad:  # a model may have no gradient at all, such as one that compares pixels
            ones = torch.ones_like(losses)
            (gradients,) = torch.autograd.grad(losses, self.receiver, ones, allow_unused=True, materialize_grads=True)
        for term in self.normalize(gradients).split(len(self.images)):
            self.total += term
        del self.receiver

    def finish(self) -> Tensor:
        return self.total


class GradientNormalizer:
    """Normalizes gradients of realizations as an ``Average`` says, and counts unusable ones (``NormalizeGradients``).

    Attributes:
        zero, invalid: (B,) int64, the counts so far (see ``GradientEstimate``).
    """

    def __init__(self, average: Average, num_images: int, device: torch.device) -> None:
        self.average = average
        self.zero = torch.zeros(num_images, dtype=torch.int64, device=device)
        self.invalid = torch.zeros_like(self.zero)

    def __call__(self, gradients: Tensor) -> Tensor:
        return torch.cat([self.normalize_realization(gradient) for gradient in gradients.split(len(self.zero))])

    def normalize_realization(self, gradient: Tensor) -> Tensor:
        """Normalizes and counts the gradients of one realization, (B, C, H, W)."""
        peak = gradient.abs().amax((1, 2, 3))
        is_finite = peak.isfinite()
        self.zero += peak == 0
        self.invalid += ~is_finite
        return torch.where(is_finite[:, None, None, None], normalize_gradient(gradient, peak, self.average), 0)


def normalize_gradient(gradient: Tensor, peak: Tensor, average: Average) -> Tensor:
    """Returns each image's term in an average; ``peak`` (B,) is the largest magnitude in its gradient."""
    if average == "normalized":
        return unit_l2(gradient, peak)
    return gradient.sign() if average == "sign" else gradient
