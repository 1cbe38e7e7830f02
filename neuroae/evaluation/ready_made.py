"""Adversarial images from elsewhere, scored like those of an attack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Perturbed
from ..attacks.balls import BALLS, Norm
from ..data import ImageSet
from ..utils.files import load_tensors
from .attack import Progress, without_passes
from .folder import checksum
from .scoring import Block, Scoring

# Other libraries clip in float32, so pixels may miss their bounds by so much, and norms theirs.
BOX_TOLERANCE = 1e-6
EPSILON_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ReadyMade:
    """Adversarial images with the ids of their clean images.

    Attributes:
        name: The name in tables.
        images: (N, C, H, W) float32 in [0, 1].
        ids: (N,) int64, the ids of the clean images.
        norm: The norm of the ball that the images lie in.
        epsilon: The radius of that ball, None if unknown.
    """

    name: str
    images: Tensor
    ids: Tensor
    norm: Norm = "linf"
    epsilon: float | None = None

    @property
    def passes(self) -> int:
        return 0

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        return without_passes(self.images[positions(self.ids, block.ids.cpu())].to(block.images.device))

    def identity(self) -> dict[str, Any]:
        return {
            "method": "images",
            "family": "images",
            "access": "images",
            "source": {"crc32": checksum(self.images)},
            "settings": {"norm": self.norm, "epsilon": self.epsilon},
            "gradients": 0,
            "forwards": 0,
        }


def load_ready_made(path: str | Path, data: ImageSet, norm: Norm = "linf", epsilon: float | None = None) -> ReadyMade:
    """Reads adversarial images of a data set. The attack is named after the file.

    Args:
        path: A safetensors file with ``images``, (N, C, H, W) of a floating point type in [0, 1], and ``ids``, (N,)
            int64. Without ids, the images are those of the data set in its order.
        data: The clean images; the file must hold an adversarial image for each of them.
        norm: The norm of the ball, "linf" or "l2".
        epsilon: The radius of the ball that the images must lie in. None checks no ball.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lacks images, or an image leaves [0, 1] or the ball.
    """
    path = Path(path)
    tensors, _ = load_tensors(path)
    if "images" not in tensors:
        raise ValueError(f"{path} holds {', '.join(tensors) or 'nothing'}, expected images")
    images = tensors["images"]
    if not images.is_floating_point():
        raise ValueError(f"{path}: images is {images.dtype}, expected a floating point type, in [0, 1]")
    images = images.float()
    shape = tuple(data.images.shape[1:])
    if images.shape[1:] != shape:
        raise ValueError(f"{path}: images has shape {tuple(images.shape)}, expected (N, {', '.join(map(str, shape))})")
    ids = tensors.get("ids", data.ids)
    if ids.dtype != torch.int64:
        raise ValueError(f"{path}: ids is {ids.dtype}, expected int64")
    if ids.shape != images.shape[:1]:
        what = "an id for each image" if "ids" in tensors else "as many as the data, since there are no ids"
        raise ValueError(f"{path} holds {len(images):,} images and there are {ids.numel():,} ids; expected {what}")
    if len(ids.unique()) < len(ids):
        raise ValueError(f"{path} holds several images of one id, expected ids that differ")
    absent = set(data.ids.tolist()) - set(ids.tolist())
    if absent:
        raise ValueError(f"{path} lacks {len(absent):,} of the {len(data):,} images, the first {min(absent)}")
    attack = ReadyMade(path.stem, images[positions(ids, data.ids)], data.ids, norm, epsilon)
    require_box(str(path), attack.images)
    if epsilon is not None:
        require_ball(str(path), attack.images, data.pixels(), data.ids, norm, epsilon)
    return attack


def positions(ids: Tensor, some_ids: Tensor) -> list[int]:
    """Returns the positions of some ids among the ids."""
    places = {image: place for place, image in enumerate(ids.tolist())}
    return [places[image] for image in some_ids.tolist()]


def require_box(name: str, images: Tensor) -> None:
    """Raises ValueError for images that leave [0, 1] or hold NaN; ``name`` says whose they are."""
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        raise ValueError(f"{name}: images has values from {low:.6g} to {high:.6g}, expected in [0, 1]")


def ball_tolerance(epsilon: float) -> float:
    """Returns by how much an image from elsewhere may leave its ball."""
    return EPSILON_TOLERANCE * max(1.0, epsilon)


def require_ball(name: str, images: Tensor, clean: Tensor, ids: Tensor, norm: Norm, epsilon: float) -> None:
    """Raises ValueError for images outside of the balls around the clean ones; ``name`` says whose they are."""
    sizes = BALLS[norm].size(images.double() - clean.double())
    outside = sizes > epsilon + ball_tolerance(epsilon)
    if outside.any():
        worst = int(sizes.argmax())
        raise ValueError(
            f"{name}: {int(outside.sum()):,} of {len(sizes):,} images leave the {norm} ball of epsilon "
            f"{epsilon:.6g}; image {int(ids[worst])} is {float(sizes[worst]):.6g} away"
        )
