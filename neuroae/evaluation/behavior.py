"""What models answer to a few images, kept so that a model that was changed is noticed wherever the change hides.

Weights can be compared as bytes. Constants that a function closes over, packed weights and the code of a class cannot,
or would refuse a model for a comment. So a folder keeps logits and input gradients, and what answers alike goes on.
"""

import base64
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks.checks import refusing_learners
from ..attacks.realizations import realizer
from ..contexts import autocast, frozen
from ..randomness import derive_seed
from ..storage import ANOTHER_FOLDER
from .attack import Attack
from .evaluation import Evaluation
from .fingerprints import fingerprint
from .scoring import Block

IMAGES = 4
# A gradient of any size is kept as so many of its products with random signs, which differ where gradients do.
PRODUCTS = 64
# Of the largest logit or product: other processors round the last bits otherwise, and a ReLU at 0 passes them on.
TOLERANCE = {"logits": 1e-3, "gradient": 1e-2}


class Behavior(NamedTuple):
    """
    Attributes:
        logits: (n, classes) float32 of one realization of each image.
        gradient: (n, 64) float32, products of random signs with the gradient of a fixed sum of the logits to the
            image; empty for a model that gives no gradient.
    """

    logits: Tensor
    gradient: Tensor

    def difference(self, other: "Behavior") -> str:
        """In words; empty where the two are alike within rounding."""
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
    """What the attacked model and each source answer, as JSON holds it; a name stands for what it answers."""
    block = evaluation.load(0)
    seed = derive_seed(evaluation.scoring.seed, "behavior")
    models: dict[str, nn.Module] = {}
    kept: dict[str, Any] = {}
    for name, model in asked_models(evaluation).items():
        known = next((other for other, each in models.items() if each is model), None)
        models[name] = model
        kept[name] = known or as_json(model, block, seed)
    return kept


def require_alike(path: object, kept: dict[str, Any], evaluation: Evaluation) -> None:
    """Refuses models that answer otherwise than those that the folder's records are of.

    Args:
        path: of the manifest, named in the error.
        kept: what ``behaviors`` gave to an evaluation with the same identity.
        evaluation: that is asked for.

    Raises:
        ValueError: one differs; the message says how.
    """
    here = behaviors(evaluation)
    for name in here:
        difference = differing(resolved(kept, name), resolved(here, name))
        if difference:
            raise ValueError(f"{path} belongs to another run: {name} gives {difference}. {ANOTHER_FOLDER}")


def resolved(kept: dict[str, Any], name: str) -> dict[str, Any]:
    value: dict[str, Any] | str = kept[name]
    return resolved(kept, value) if isinstance(value, str) else value


def differing(kept: dict[str, Any], here: dict[str, Any]) -> str:
    if kept.keys() != here.keys():
        return "answers that repeat in one of the two runs only"
    if "fingerprint" in kept:
        return "" if kept == here else f"fingerprint {kept['fingerprint']!r} there and {here['fingerprint']!r} here"
    return decoded(kept).difference(decoded(here))


def asked_models(evaluation: Evaluation) -> dict[str, nn.Module]:
    """The attacked model and the attacks' sources, by the names that errors give them."""
    sources = (attack for attack in evaluation.attacks if isinstance(attack, Attack))
    return {"model": evaluation.model} | {f"the source of {attack.name}": attack.source for attack in sources}


def as_json(model: nn.Module, block: Block, seed: int) -> dict[str, Any]:
    """Of a model whose answers do not repeat, the fingerprint of its state and code instead."""
    first, again = (behavior(model, block, seed) for _ in range(2))
    if first.difference(again):
        return {"fingerprint": fingerprint(model)}
    return {name: encode(tensor) for name, tensor in first._asdict().items()}


def behavior(model: nn.Module, block: Block, seed: int) -> Behavior:
    """The first few rows of the block's answers: a model may depend on the number of images."""
    with autocast("float32", block.images.device), refusing_learners():
        try:
            with frozen(model):
                logits, gradient = with_gradient(model, block, seed)
        except RuntimeError:  # its images change in place, or there is no derivative, or no memory for it
            with torch.no_grad():
                logits = answers(model, block, seed, block.images.clone())
            gradient = torch.empty(0)
    return Behavior(logits.detach().float().cpu()[:IMAGES], products(gradient.cpu()[:IMAGES]))


def answers(model: nn.Module, block: Block, seed: int, receiver: Tensor) -> Tensor:
    return realizer(model, block.images, seed, block.ids)(0, 1, receiver)


@torch.enable_grad()
def with_gradient(model: nn.Module, block: Block, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their sum with fixed weights, which saturates nowhere; empty where there is none."""
    images = block.images.clone().requires_grad_()
    logits = answers(model, block, seed, images)
    weights = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(0)).to(logits)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    return logits, torch.empty(0) if gradient is None else gradient


def products(gradient: Tensor) -> Tensor:
    if not gradient.numel():
        return torch.empty(0)
    flat = gradient.float().flatten(1)
    signs = torch.randint(2, (flat.shape[1], PRODUCTS), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return flat @ signs


def encode(tensor: Tensor) -> dict[str, Any]:
    """A tensor of float32 as its shape and its bytes, little endian, in base 64."""
    values = base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()
    return {"shape": "x".join(map(str, tensor.shape)), "float32": values}


def decoded(kept: dict[str, Any]) -> Behavior:
    def tensor(part: dict[str, Any]) -> Tensor:
        values = np.frombuffer(base64.b64decode(part["float32"]), "<f4").copy()
        return torch.from_numpy(values).reshape([int(side) for side in part["shape"].split("x")])

    return Behavior(*(tensor(kept[name]) for name in Behavior._fields))
