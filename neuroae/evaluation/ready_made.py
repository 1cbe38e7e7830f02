"""Adversarial images that came from elsewhere, scored like those of an attack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Perturbed
from ..attacks.balls import BALLS, Norm
from ..data import ImageSet
from ..utils.files import load_tensors
from .attack import Progress, untouched
from .folder import checksum
from .scoring import Block, Scoring

# Attacks of other libraries clip in float32: by so much a pixel may miss its bound, and an l2 norm its own.
BOX_TOLERANCE = 1e-6
EPSILON_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ReadyMade:
    """Adversarial images by their ids.

    Attributes:
        name: as that of an attack.
        images: (N, C, H, W) float32 in [0, 1].
        ids: (N,) int64, of the clean images that they belong to.
        norm, epsilon: of the ball that they were found to lie in; None where no epsilon was told.
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
        return untouched(self.images[positions(self.ids, block.ids.cpu())].to(block.images.device))

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
    """Reads adversarial images of a data set, named after their file.

    Args:
        path: safetensors with ``images``, (N, C, H, W) of a floating point type in [0, 1], and ``ids``, (N,) int64;
            without ids, the images are those of the data set in its order.
        data: the clean images, all of which must be there.
        norm: "linf" or "l2".
        epsilon: radius of the ball that the images must lie in; None asks for none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, lacks images or has others, or an image leaves the box or the ball.
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
    found = ReadyMade(path.stem, images[positions(ids, data.ids)], data.ids, norm, epsilon)
    check_box(path, found)
    check_ball(path, found, data)
    return found


def positions(ids: Tensor, wanted: Tensor) -> list[int]:
    where = {image: position for position, image in enumerate(ids.tolist())}
    return [where[image] for image in wanted.tolist()]


def check_box(path: Path, found: ReadyMade) -> None:
    low, high = (float(bound) for bound in found.images.aminmax())
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        raise ValueError(f"{path}: images has values from {low:.6g} to {high:.6g}, expected in [0, 1]")


def ball_tolerance(epsilon: float) -> float:
    """By how much an image that came from elsewhere may leave its ball."""
    return EPSILON_TOLERANCE * max(1.0, epsilon)


def check_ball(path: Path, found: ReadyMade, data: ImageSet) -> None:
    if found.epsilon is None:
        return
    sizes = BALLS[found.norm].size(found.images.double() - data.pixels().double())
    outside = sizes > found.epsilon + ball_tolerance(found.epsilon)
    if outside.any():
        worst = int(sizes.argmax())
        raise ValueError(
            f"{path}: {int(outside.sum()):,} of {len(sizes):,} images leave the {found.norm} ball of epsilon "
            f"{found.epsilon:.6g}; image {int(data.ids[worst])} is {float(sizes[worst]):.6g} away"
        )
