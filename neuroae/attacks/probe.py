"""What an attack can expect of a model: randomness, usable gradients, and places where there still are some.

Measured on a few images before an attack begins; every number is shown in the report.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..utils.contexts import frozen
from ..utils.modules import takes_seeds
from ..utils.randomness import derive_seed
from .bpda import LogProbabilities
from .checks import check_inputs
from .eot import eot_gradient
from .evolution import coarse_uniform
from .losses import drawn_logits, margin
from .protocol import batch_seed, realizer
from .straight_through import StraightThrough
from .taps import input_taps, logits_tap

Gradient = Literal["usable", "none", "missing", "zero", "not finite", "misleading"]
DRAWS = 8
# A gradient is dead where more than this share of single realizations have none.
DEAD_SHARE = 0.5
# The agreement with differences from which a gradient is believed, as a cosine over random directions.
BELIEVED = 0.3
DIRECTIONS = 16
COARSENESS = 4
# Realizations are doubled until gradients of independent draws agree so far.
AGREEMENT = 0.5
MOST_REALIZATIONS = 32


@dataclass(frozen=True)
class Probe:
    """What was measured of a model.

    Attributes:
        random: Whether two realizations answer differently.
        probabilities: Whether the answers are probabilities; their logarithm is attacked.
        gradient: "usable"; "none" where the model cannot be differentiated at all; "missing", "zero" or "not finite"
            on most images; "misleading" where it disagrees with differences of the loss.
        zero, not_finite: Shares of single realizations with such gradients.
        cosine, cosine_spread: Agreement of the gradient with differences of the loss along random directions that see
            the same draws: the mean over images, and the standard deviation.
        optimizes: Whether a forward pass calls autograd or an optimizer.
        batch_difference: The largest change of a logit when an image is answered alone, by the same draws; None where
            draws cannot be repeated.
        realizations: N_E, after which two independent gradients agree, or the largest that was tried.
        agreement: Cosine of gradients of independent halves, by the number of draws in a half.
        input_taps, logits_tap: Where gradients can be taken within the model (see ``taps``).
        straight_through: Whether straight-through rounding, comparisons and so on give another gradient.
    """

    random: bool
    probabilities: bool
    gradient: Gradient
    zero: float
    not_finite: float
    cosine: float
    cosine_spread: float
    optimizes: bool
    batch_difference: float | None
    realizations: int
    agreement: dict[int, float] = field(default_factory=dict)
    input_taps: tuple[str, ...] = ()
    logits_tap: str | None = None
    straight_through: bool = False

    def as_json(self) -> dict[str, Any]:
        """Returns the probe in a form that JSON holds."""
        agreement = {str(count): cosine for count, cosine in self.agreement.items()}
        return asdict(self) | {"agreement": agreement, "input_taps": list(self.input_taps)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Probe":
        agreement = {int(count): cosine for count, cosine in value["agreement"].items()}
        return cls(**value | {"agreement": agreement, "input_taps": tuple(value["input_taps"])})


def probe(model: nn.Module, images: Tensor, labels: Tensor, image_ids: Tensor, seed: int, epsilon: float) -> Probe:
    """Examines a model on a few images.

    Args:
        model: Images (B, C, H, W) in [0, 1] to logits or probabilities, in evaluation mode.
        images: (B, C, H, W) float32 in [0, 1]; 8 to 16 of them are enough.
        labels, image_ids: (B,) int64.
        seed: Of all draws.
        epsilon: How far each pixel moves where differences of the loss are measured.

    Raises:
        TypeError, ValueError: An argument does not fit (see ``check_inputs``).
    """
    check_inputs(model, images, labels, image_ids)
    seed = batch_seed(model, seed, image_ids)
    with torch.no_grad():
        draws = torch.stack(list(drawn_logits(model, images, DRAWS, seed, image_ids)))
    random = not bool((draws == draws[:1]).all())
    probabilities = are_probabilities(draws)
    attacked = LogProbabilities(model) if probabilities else model
    optimizes = has_inner_optimization(model, images, seed, image_ids)
    arguments = {"seed": derive_seed(seed, "tap"), "image_ids": image_ids} if takes_seeds(model) else {}
    with frozen(model):
        taps = input_taps(attacked, images, lambda logits: margin(logits, labels), **arguments)
        # Logits before a logarithm of ours are those before the model's own squashing.
        logits = logits_tap(model, images, lambda logits: margin(logits, labels), **arguments)
    gradient = examine_gradient(attacked, images, labels, image_ids, seed, epsilon, DRAWS if random else 1)
    agreement = agreements(attacked, images, labels, image_ids, seed) if random and gradient.zero < 1 else {}
    return Probe(
        random,
        probabilities,
        gradient.kind,
        gradient.zero,
        gradient.not_finite,
        gradient.cosine,
        gradient.spread,
        optimizes,
        batch_difference(model, images, seed, image_ids, random),
        enough(agreement),
        agreement,
        tuple(path.removeprefix("model.") if probabilities else path for path in taps),
        logits,
        has_straight_through(attacked, images, labels, image_ids, seed),
    )


def are_probabilities(answers: Tensor) -> bool:
    """Returns whether answers (draws, B, classes) are at least 0 and add up to 1."""
    return bool((answers >= 0).all() and ((answers.sum(-1) - 1).abs() < 1e-3).all())


@dataclass(frozen=True)
class Examination:
    """What was measured of a model's gradient.

    Attributes:
        kind, zero, not_finite, cosine, spread: As in ``Probe``.
    """

    kind: Gradient
    zero: float
    not_finite: float
    cosine: float
    spread: float


def examine_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, image_ids: Tensor, seed: int, epsilon: float, draws: int
) -> Examination:
    """Compares the gradient of the margin with differences along random directions, on the same draws."""
    draw_seed = derive_seed(seed, "examine")
    try:
        estimate = eot_gradient(
            model,
            images,
            labels,
            realizations=draws,
            seed=draw_seed,
            image_ids=image_ids,
            average="mean",
            loss="margin",
        )
    except RuntimeError:  # torch raises them where an operation has no derivative
        return Examination("none", 1.0, 0.0, 0.0, 0.0)
    zero, broken = (float(count.sum()) / (draws * len(images)) for count in (estimate.zero, estimate.invalid))
    predicted, measured = [], []
    for number in range(DIRECTIONS):
        shift = epsilon * coarse_signs(images, derive_seed(seed, "direction", number), image_ids)
        ends = [mean_of_margins(model, images + sign * shift, labels, draws, draw_seed, image_ids) for sign in (1, -1)]
        measured.append(ends[0] - ends[1])
        predicted.append((estimate.gradient * 2 * shift).flatten(1).sum(1))
    cosines = torch.cosine_similarity(torch.stack(predicted), torch.stack(measured), dim=0).nan_to_num(0)
    mean, spread = float(cosines.mean()), float(cosines.std())
    return Examination(kind_of(model, images, zero, broken, mean), zero, broken, mean, spread)


def kind_of(model: nn.Module, images: Tensor, zero: float, not_finite: float, cosine: float) -> Gradient:
    """Returns the kind of gradient (see ``Probe.gradient``) from what was measured of it."""
    if zero > DEAD_SHARE:
        return "zero" if is_connected(model, images) else "missing"
    if not_finite > DEAD_SHARE:
        return "not finite"
    return "usable" if cosine >= BELIEVED else "misleading"


def is_connected(model: nn.Module, images: Tensor) -> bool:
    """Returns whether autograd finds a way from the answers to the images, even if the gradient is zero."""
    points = images.clone().requires_grad_()
    with torch.enable_grad():
        total = model(points).sum()
    return total.requires_grad and torch.autograd.grad(total, points, allow_unused=True)[0] is not None


def coarse_signs(images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
    """Returns random signs (B, C, H, W), equal on squares of ``COARSENESS`` pixels: models heed finer noise less."""
    return 1 - 2 * (coarse_uniform(images, COARSENESS, seed, image_ids) < 0.5).to(images.dtype)


def mean_of_margins(
    model: nn.Module, images: Tensor, labels: Tensor, draws: int, seed: int, image_ids: Tensor
) -> Tensor:
    """Returns the mean margin of the logits over realizations, (B,). The mean gradient is the gradient of this."""
    logits = drawn_logits(model, images.clamp(0, 1), draws, seed, image_ids)
    return torch.stack([margin(each, labels) for each in logits]).mean(0)


def agreements(model: nn.Module, images: Tensor, labels: Tensor, image_ids: Tensor, seed: int) -> dict[int, float]:
    """Returns the mean cosine of gradients of independent draws by their number: 1, 2, 4, ... until they agree."""
    halves = [torch.zeros_like(images), torch.zeros_like(images)]
    cosines: dict[int, float] = {}
    count = 0
    while count < MOST_REALIZATIONS and (not cosines or cosines[count] < AGREEMENT):
        more = max(count, 1)
        for half in range(2):
            estimate = eot_gradient(
                model,
                images,
                labels,
                realizations=more,
                seed=derive_seed(seed, "half", half),
                image_ids=image_ids,
                start=count,
                loss="margin",
            )
            halves[half] += more * estimate.gradient
        count += more
        first, second = (half.flatten(1) for half in halves)
        cosines[count] = float(torch.cosine_similarity(first, second).mean())
    return cosines


def enough(agreement: dict[int, float]) -> int:
    """Returns the fewest realizations that agree; the most that were tried if none do; 1 if nothing is random."""
    return next((count for count, cosine in agreement.items() if cosine >= AGREEMENT), max(agreement, default=1))


def has_straight_through(model: nn.Module, images: Tensor, labels: Tensor, image_ids: Tensor, seed: int) -> bool:
    """Returns whether ``StraightThrough`` runs the model and changes its gradient."""
    gradients = []
    for view in (model, StraightThrough(model)):
        try:
            estimate = eot_gradient(
                view, images, labels, realizations=1, seed=seed, image_ids=image_ids, loss="margin"
            )
        except Exception:  # a model may do anything with the tensors of the straight-through mode
            gradients.append(torch.zeros_like(images))
            if view is not model:
                return False
        else:
            gradients.append(estimate.gradient)
    return not torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def batch_difference(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor, random: bool) -> float | None:
    """Returns the largest change of a logit of the first image when it is alone; None if draws cannot be repeated."""
    if random and not takes_seeds(model):
        return None
    with torch.no_grad():
        together = realizer(model, images, seed, image_ids)(0, 1, images.clone())[:1]
        alone = realizer(model, images[:1], seed, image_ids[:1])(0, 1, images[:1].clone())
    return float((together - alone).abs().max())


def has_inner_optimization(model: nn.Module, images: Tensor, seed: int, image_ids: Tensor) -> bool:
    """Returns whether a forward pass takes gradients or steps of an optimizer."""
    with torch.no_grad(), counting_gradients() as calls:
        realizer(model, images[:1], seed, image_ids[:1])(0, 1, images[:1].clone())
    return bool(calls)


@contextmanager
def counting_gradients() -> Iterator[list[str]]:
    """Lists the calls of autograd and of optimizers while the block runs."""
    calls: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*arguments, **options)

        return call

    handle = register_optimizer_step_pre_hook(lambda *_: calls.append("step"))
    with ExitStack() as stack:
        stack.callback(handle.remove)
        for owner, name in ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")):
            stack.enter_context(patch.object(owner, name, counted(name, getattr(owner, name))))
        yield calls
