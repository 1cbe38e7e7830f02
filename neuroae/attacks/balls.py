"""The perturbations allowed to an attack: l-infinity and l2 balls, within the box of pixels in [0, 1]."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..utils.randomness import derive_seed, random_uniform

Norm = Literal["linf", "l2"]
NORMS = get_args(Norm)
# The largest rounding error of a float32 pixel in [0, 1], and the relative one of a perturbation's scale.
PIXEL_ROUNDING = 2**-25
SCALE_ROUNDING = 2**-22
HALVINGS = 24


class Ball(NamedTuple):
    """The functions of a norm. Images and gradients are (B, C, H, W).

    Attributes:
        project: From (perturbed, images, epsilon) to the nearest images in ball and box.
        direction: From a gradient to the steepest step of length 1 in the norm.
        random: From (images, epsilon, seed, image_ids) to uniform points of the ball, projected into the box.
        size: From perturbations in double precision to their norms, (B,).
    """

    project: Callable[[Tensor, Tensor, float], Tensor]
    direction: Callable[[Tensor], Tensor]
    random: Callable[[Tensor, float, int, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]


def project_linf(perturbed: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Projects images into the l-infinity ball around the clean images, and into the box."""
    return torch.clamp(perturbed, (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1))


def project_l2(perturbed: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Projects images into the l2 ball around the clean images, and into the box.

    The nearest point is the largest multiple of the offset that lies in the ball after clipping to the box; bisection
    finds it. Its norm in double precision is within epsilon after all rounding.
    """
    offset, low, high = perturbed - images, -images, 1 - images
    radius = max(epsilon * (1 - SCALE_ROUNDING) - PIXEL_ROUNDING * math.sqrt(images[0].numel()), 0)
    length = norms_l2(offset)
    inner = torch.where(length > radius, radius / length, torch.ones_like(length))
    outer = torch.ones_like(length)
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        is_inside = norms_l2(torch.clamp(offset * broadcast(middle, offset), low, high)) <= radius
        inner, outer = torch.where(is_inside, middle, inner), torch.where(is_inside, outer, middle)
    return (images + torch.clamp(offset * broadcast(inner, offset), low, high)).clamp(0, 1)


def norms_l2(offsets: Tensor) -> Tensor:
    """Returns l2 norms, (B,) float64."""
    return torch.linalg.vector_norm(offsets.flatten(1), dim=1, dtype=torch.float64)


def broadcast(numbers: Tensor, images: Tensor) -> Tensor:
    """Returns one number for each image, (B,), in a shape and dtype that multiplies images."""
    return numbers.to(images.dtype)[:, None, None, None]


def unit_l2(gradient: Tensor, peak: Tensor | None = None) -> Tensor:
    """Divides gradients by their l2 norms. Zero stays zero.

    Divides by the largest entry first, since the squares of a confident model's gradient may underflow.

    Args:
        gradient: (B, C, H, W).
        peak: (B,), the largest magnitude in each gradient; None computes it.
    """
    if peak is None:
        peak = gradient.abs().amax((1, 2, 3))
    scaled = gradient / torch.where(peak > 0, peak, 1)[:, None, None, None]
    return scaled / scaled.flatten(1).norm(dim=1).clamp(min=1)[:, None, None, None]


def random_linf(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """Returns uniform points of the l-infinity ball, clipped to the box."""
    noise = random_uniform(seed, image_ids, tuple(images.shape[1:]))
    return project_linf(images + epsilon * (2 * noise - 1), images, epsilon)


def random_l2(images: Tensor, epsilon: float, seed: int, image_ids: Tensor) -> Tensor:
    """Returns uniform points of the l2 ball, projected into the box: a normal direction times a random radius."""
    shape = tuple(images.shape[1:])
    # The lowest draw, 0, would give an infinite normal deviate.
    uniform = random_uniform(derive_seed(seed, "direction"), image_ids, shape).clamp(min=2**-25)
    direction = unit_l2(torch.special.ndtri(uniform))
    radius = random_uniform(derive_seed(seed, "radius"), image_ids, (1, 1, 1)) ** (1 / math.prod(shape))
    return project_l2(images + epsilon * radius * direction, images, epsilon)


BALLS: dict[str, Ball] = {
    "linf": Ball(project_linf, torch.sign, random_linf, lambda offsets: offsets.abs().flatten(1).amax(1)),
    "l2": Ball(project_l2, unit_l2, random_l2, norms_l2),
}


def round_to_8_bits(images: Tensor) -> Tensor:
    """Rounds images to the values that 8-bit files hold; each pixel moves by at most 1/510."""
    return (images * 255).round() / 255
