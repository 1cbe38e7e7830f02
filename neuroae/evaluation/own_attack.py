"""An attack of the user's own: a function from model, images, labels and epsilon to perturbed images."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from ..attacks import Perturbed
from ..attacks.balls import Norm
from ..utils.contexts import drawing_from
from ..utils.functions import load_function
from ..utils.randomness import derive_seed
from .attack import Progress, without_passes
from .ready_made import require_ball, require_box
from .scoring import Block, Scoring

AttackFunction = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class OwnAttack:
    """A user's function as an attack on the attacked model.

    Attributes:
        name: The name in tables. The seed of torch's generators derives from it, for each block of images.
        function: From the model, images (B, C, H, W) float32 in [0, 1], labels (B,) int64 and epsilon to perturbed
            images of the same shape, which must be within the ball.
        epsilon: The radius of the ball.
        norm: "linf" or "l2".
    """

    name: str
    function: AttackFunction
    epsilon: float
    norm: Norm = "linf"

    @property
    def passes(self) -> int:
        return 1

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        seed = derive_seed(scoring.seed, f"craft {self.name}", int(block.ids[0]))
        images = block.images.clone()
        with drawing_from(seed, images.device), torch.enable_grad(), counting_passes(model) as passes:
            perturbed = self.function(model, images, block.labels.clone(), self.epsilon)
        perturbed = self.checked(perturbed, block)
        progress(len(block.images))
        gradients, forwards = (round(passes[kind] / len(block.images)) for kind in ("gradients", "forwards"))
        return without_passes(perturbed)._replace(gradients=gradients, forwards=forwards)

    def checked(self, perturbed: object, block: Block) -> Tensor:
        """Returns the function's images; an error names it where they are no images within the ball."""
        shape = tuple(block.images.shape)
        if not isinstance(perturbed, Tensor) or not perturbed.is_floating_point() or perturbed.shape != shape:
            what = (
                f"{perturbed.dtype} of shape {tuple(perturbed.shape)}"
                if isinstance(perturbed, Tensor)
                else f"a {type(perturbed).__name__}"
            )
            raise TypeError(f"{self.name} returned {what}, expected floating-point images of shape {shape}")
        perturbed = perturbed.detach().float()
        require_box(self.name, perturbed)
        require_ball(self.name, perturbed, block.images, block.ids, self.norm, self.epsilon)
        return perturbed

    def identity(self) -> dict[str, Any]:
        return {
            "method": "function",
            "family": "white-box",
            "access": "white-box",
            "source": {"crc32": source_checksum(self.function)},
            "settings": {"norm": self.norm, "epsilon": self.epsilon},
            "gradients": 0,
            "forwards": 0,
        }


def load_own_attack(name: str, epsilon: float, norm: Norm = "linf") -> OwnAttack:
    """Returns the attack of a user's function, "module:function" (see ``OwnAttack.function``).

    Raises:
        ImportError: There is no such module.
        ValueError: The module has no such function, or it takes other arguments.
    """
    return OwnAttack(name, load_function(name, "model", "images", "labels", "epsilon"), epsilon, norm)


@contextmanager
def counting_passes(model: nn.Module) -> Iterator[dict[str, int]]:
    """Counts the images that pass the model within the block: with a gradient ahead, and without."""
    passes = {"gradients": 0, "forwards": 0}

    def count(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        images = next((value for value in arguments if isinstance(value, Tensor)), None)
        if images is not None:
            follows = torch.is_grad_enabled() and images.requires_grad
            passes["gradients" if follows else "forwards"] += len(images)

    handle = model.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def source_checksum(function: Callable[..., Any]) -> int:
    """Returns a checksum of the source of the function's module, 0 where there is none to read.

    A folder that was begun with other code is then refused.
    """
    module = inspect.getmodule(function)
    try:
        return crc32(inspect.getsource(module or function).encode())
    except (OSError, TypeError):
        return 0
