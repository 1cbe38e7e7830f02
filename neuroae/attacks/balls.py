"""The perturbations that an attack may make: l-infinity and l2 balls, within the box of pixels."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..utils.randomness import derive_seed, random_uniform

Norm = Literal["linf", "l2"]
NORMS = get_args(Norm)
# What rounding a float32 pixel in [0, 1] may add to a perturbation, and what rounding its scale may, relative to it.
PIXEL_ROUNDING = 2**-25
SCALE_ROUNDING = 2**-22
HALVINGS = 24


class Ball(NamedTuple):
    """
    Attributes:
        project: (perturbed, images, epsilon) to the nearest images in ball and box.
        direction: a gradient (B, C, H, W) to the step of length 1 in the norm that rises the most.
        random: (images, epsilon, seed, image_ids) to a uniform point of the ball, brought into the box.
        size: (perturbations, in double precision) to their norms, (B,).
    """

    project: Callable[[Tensor, Tensor, float], Tensor]
    direction: Callable[[Tensor], Tensor]
    random: Callable[[Tensor, float, int, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]


def project_linf(perturbed: Tensor, images: Tensor, epsilon: float) -> Tensor:
    return torch.clamp(perturbed, (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1))


def project_l2(perturbed: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The nearest point is a multiple of the offset, clipped to the box: the largest that the ball holds.

    Its double-precision norm is within epsilon after all rounding.
    """
    offset, low, high = perturbed - images, -images, 1 - images
    radius = max(epsilon * (1 - SCALE_ROUNDING) - PIXEL_ROUNDING * math.sqrt(images[0].numel()), 0)
    length = norms_l2(offset)
    fits = torch.where(length > radius, radius / length, torch.ones_like(length))
    too_long = torch.ones_like(length)
    for _ in range(HALVINGS):
        middle = (fits + too_long) / 2
        inside = norms_l2(torch.clamp(offset * spread(middle, offset), low, high)) <= radius
        fits, too_long = torch.where(inside, middle, fits), torch.where(inside, too_long, middle)
    return (images + torch.clamp(offset * spread(fits, offset), low, high)).clamp(0, 1)


def norms_l2(offsets: Tensor) -> Tensor:
    """(B,) float64."""
    return torch.linalg.vector_norm(offsets.flatten(1), dim=1, dtype=torch.float64)


def spread(numbers: Tensor, images: Tensor) -> Tensor:
    """One number an image, in the shape and dtype that multiplies images."""
    return numbers.to(images.dtype)[:, None, None, None]


def unit_l2(gradient: Tensor, peak: Tensor | None = None) -> Tensor:
    """Divided by the l2 norm, by way of the largest entry: squares of a confident model's gradient may underflow.

    Zero stays zero.

    Args:
        gradient: (B, C, H, W).
        peak: (B,), the largest entry of each in absolute value, where it is known.
    """
    if peak is None:
        peak = gradient.abs().amax((1, 2, 3))
    scaled = gradient / torch.where(peak > 0, peak, 1)[:, None, None, None]
    return scaled / scaled.flatten(1).norm(dim=1).clamp(min=1)[:, None, None, None]


def random_linf(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    noise = random_uniform(seed, image_ids, tuple(images.shape[1:]))
    return project_linf(images + epsilon * (2 * noise - 1), images, epsilon)


def random_l2(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """A normal direction, and a radius that fills the ball evenly."""
    shape = tuple(images.shape[1:])
    # The lowest draw, 0, would be an infinite deviate.
    uniform = random_uniform(derive_seed(seed, "direction"), image_ids, shape).clamp(min=2**-25)
    direction = unit_l2(torch.special.ndtri(uniform))
    radius = random_uniform(derive_seed(seed, "radius"), image_ids, (1, 1, 1)) ** (1 / math.prod(shape))
    return project_l2(images + epsilon * radius * direction, images, epsilon)


BALLS: dict[str, Ball] = {
    "linf": Ball(project_linf, torch.sign, random_linf, lambda offsets: offsets.abs().flatten(1).amax(1)),
    "l2": Ball(project_l2, unit_l2, random_l2, norms_l2),
}


def round_to_8_bits(images: Tensor) -> Tensor:
    """The nearest images that a file of bytes can hold; each pixel moves by at most 1/510."""
    return (images * 255).round() / 255
