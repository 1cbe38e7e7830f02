"""What an evaluation measures of its models before it starts: what a gradient costs, and how each model answers."""

import base64
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import SquareSettings, eot_gradient
from ..attacks.checks import no_training_normalization
from ..attacks.protocol import realizer
from ..models.fingerprints import fingerprint
from ..nn.defense import Defense
from ..utils.contexts import autocast, frozen
from ..utils.files import ANOTHER_FOLDER
from ..utils.randomness import derive_seed
from .attack import Attack, Perturbation
from .plan import Evaluation
from .scoring import Block, Scoring

# Gradients are timed on so many images and realizations, and the fastest of so many rounds counts.
TIMED_IMAGES = 16
REALIZATIONS = 4
ROUNDS = 5


def gradient_costs(evaluation: Evaluation) -> dict[str, float | None]:
    """Returns ``relative_cost`` of each attack, by its name."""
    block = evaluation.load(0)
    return {attack.name: relative_cost(attack, block, evaluation.scoring) for attack in evaluation.all_attacks}


def relative_cost(attack: Perturbation, block: Block, scoring: Scoring) -> float | None:
    """Returns K: the seconds of a gradient pass of the attack's source over those of its classifier alone.

    Both are timed in the attack's precision, with its loss, so that a loss which the model cannot give fails here. A
    source that is not a ``Defense`` has no smaller part to compare with: 1. An attack without gradients has no such
    cost: None.
    """
    if not isinstance(attack, Attack) or isinstance(attack.settings, SquareSettings):
        return None
    few = Block(*(tensor[:TIMED_IMAGES] for tensor in block))
    crafting_model = attack.crafting_model(scoring, few.ids)
    if not isinstance(attack.source, Defense):
        take_gradient(attack, crafting_model, few)
        return 1.0
    classifier = attack.source.classifier
    with torch.no_grad():
        decoded = few._replace(images=attack.source.autoencode(few.images, 0, few.ids).float().clamp(0, 1))
    runs = [
        lambda: take_gradient(attack, crafting_model, few),
        lambda: take_gradient(attack, classifier, decoded),
    ]
    source_seconds, classifier_seconds = least_seconds(runs, few.images.device)
    return source_seconds / classifier_seconds


def take_gradient(attack: Attack, model: nn.Module, block: Block) -> None:
    assert not isinstance(attack.settings, SquareSettings)
    with autocast(attack.precision, block.images.device):
        eot_gradient(
            model,
            block.images,
            block.labels,
            realizations=REALIZATIONS,
            seed=0,
            image_ids=block.ids,
            # The classifier alone answers one realization at a time, too.
            chunk=1,
            loss=attack.settings.loss,
        )


def least_seconds(runs: Sequence[Callable[[], None]], device: torch.device) -> list[float]:
    """Returns the least time of each run over several rounds, when the machine was least busy; one round warms up."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed(run: Callable[[], None]) -> float:
        start = clock()
        run()
        return clock() - start

    rounds = [[timed(run) for run in runs] for _ in range(1 + ROUNDS)]
    return [min(each) for each in zip(*rounds[1:], strict=True)]


ANSWERED_IMAGES = 4
# A gradient of any size is kept as its products with so many vectors of random signs: they differ if gradients do.
PRODUCTS = 64
# In shares of the largest logit or product. Processors differ in the last bits, and a ReLU whose input is near 0 may
# then be on here and off there.
TOLERANCE = {"logits": 1e-3, "gradient": 1e-2}


class Behavior(NamedTuple):
    """How a model answers a few images.

    Attributes:
        logits: (n, classes) float32, of one realization of each image.
        gradient: (n, 64) float32, products of vectors of random signs with the gradient of a fixed sum of the logits
            to the image; empty for a model that gives no gradient.
    """

    logits: Tensor
    gradient: Tensor

    def difference(self, other: "Behavior") -> str:
        """Returns how the two differ, in words; "" where they agree within rounding."""
        for name, limit in TOLERANCE.items():
            first, second = getattr(self, name), getattr(other, name)
            if first.shape != second.shape:
                return f"{name} of shape {list(first.shape)} there and {list(second.shape)} here"
            largest = float(first[first.isfinite()].abs().max()) if bool(first.isfinite().any()) else 0.0
            if not torch.allclose(first, second, rtol=0, atol=limit * largest, equal_nan=True):
                apart = float((first - second).abs().max())
                return f"{name} that differ by up to {apart:.3g}, where the largest is {largest:.3g}"
        return ""


def behaviors(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the behavior of the attacked model and of each source as JSON values, by the model's name.

    A model that has several names is stored once; its other names refer to the first.
    """
    block = evaluation.load(0)
    seed = derive_seed(evaluation.scoring.seed, "behavior")
    models: dict[str, nn.Module] = {}
    values: dict[str, Any] = {}
    for name, model in named_models(evaluation).items():
        earlier = next((other for other, each in models.items() if each is model), None)
        models[name] = model
        values[name] = earlier or behavior_value(model, block, seed)
    return values


def require_same_behavior(path: object, saved: dict[str, Any], measured: dict[str, Any]) -> None:
    """Refuses models that answer differently from the models that a folder's records come from.

    Args:
        path: The manifest, for the error.
        saved: What ``behaviors`` returned when the folder's evaluation began; its identity is the same.
        measured: What it returns now.

    Raises:
        ValueError: A model differs; the message says how.
    """
    for name in measured:
        difference = behavior_difference(resolved(saved, name), resolved(measured, name))
        if difference:
            raise ValueError(f"{path} belongs to another run: {name} gives {difference}. {ANOTHER_FOLDER}")


def resolved(values: dict[str, Any], name: str) -> dict[str, Any]:
    value: dict[str, Any] | str = values[name]
    return resolved(values, value) if isinstance(value, str) else value


def behavior_difference(saved: dict[str, Any], measured: dict[str, Any]) -> str:
    if saved.keys() != measured.keys():
        return "answers that repeat in one of the two runs only"
    if "fingerprint" in saved:
        if saved == measured:
            return ""
        return f"fingerprint {saved['fingerprint']!r} there and {measured['fingerprint']!r} here"
    return decode(saved).difference(decode(measured))


def named_models(evaluation: Evaluation) -> dict[str, nn.Module]:
    """Returns the attacked model and the attacks' sources, by the names that errors give them."""
    sources = (attack for attack in evaluation.attacks if isinstance(attack, Attack))
    return {"model": evaluation.model} | {f"the source of {attack.name}": attack.source for attack in sources}


def behavior_value(model: nn.Module, block: Block, seed: int) -> dict[str, Any]:
    """Returns a model's behavior as JSON values, or its fingerprint with code where its answers do not repeat."""
    first, again = (behavior(model, block, seed) for _ in range(2))
    if first.difference(again):
        return {"fingerprint": fingerprint(model)}
    return {name: encode(tensor) for name, tensor in first._asdict().items()}


def behavior(model: nn.Module, block: Block, seed: int) -> Behavior:
    """Returns the first rows of the answers to the whole block, since answers may depend on the number of images."""
    with autocast("float32", block.images.device), no_training_normalization():
        try:
            with frozen(model):
                logits, gradient = logits_and_gradient(model, block, seed)
        except RuntimeError:  # it changes its images in place, has no derivative, or there is no memory for it
            with torch.no_grad():
                logits = logits_of(model, block, seed, block.images.clone())
            gradient = torch.empty(0)
    rows = slice(ANSWERED_IMAGES)
    return Behavior(logits.detach().float().cpu()[rows], random_products(gradient.cpu()[rows]))


def logits_of(model: nn.Module, block: Block, seed: int, receiver: Tensor) -> Tensor:
    return realizer(model, block.images, seed, block.ids)(0, 1, receiver)


@torch.enable_grad()
def logits_and_gradient(model: nn.Module, block: Block, seed: int) -> tuple[Tensor, Tensor]:
    """Returns logits and the gradient of a fixed weighted sum of them, which never saturates; empty without one."""
    images = block.images.clone().requires_grad_()
    logits = logits_of(model, block, seed, images)
    weights = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(0)).to(logits)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    return logits, torch.empty(0) if gradient is None else gradient


def random_products(gradient: Tensor) -> Tensor:
    if not gradient.numel():
        return torch.empty(0)
    flat = gradient.float().flatten(1)
    signs = torch.randint(2, (flat.shape[1], PRODUCTS), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return flat @ signs


def encode(tensor: Tensor) -> dict[str, Any]:
    """Returns a float32 tensor as its shape and its bytes, little endian, in base 64."""
    values = base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()
    return {"shape": "x".join(map(str, tensor.shape)), "float32": values}


def decode(value: dict[str, Any]) -> Behavior:
    """Returns the behavior that ``encode`` turned into JSON values, part by part."""

    def tensor(part: dict[str, Any]) -> Tensor:
        values = np.frombuffer(base64.b64decode(part["float32"]), "<f4").copy()
        return torch.from_numpy(values).reshape([int(side) for side in part["shape"].split("x")])

    return Behavior(*(tensor(value[name]) for name in Behavior._fields))
