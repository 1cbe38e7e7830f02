"""Balls and box: what is projected lies inside, and nothing inside is nearer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest

from attacked_models import distance
from neuroae.attacks.balls import BALLS, NORMS, round_to_8_bits, unit_l2

ROUNDING = 2**-24
EPSILONS = {"linf": 0.1, "l2": 0.8}


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=50)
@given(epsilon=st.floats(0, 1), reach=st.floats(0, 3), seed=st.integers(0, 2**32))
def test_projected_images_are_in_ball_and_box(norm: str, epsilon: float, reach: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 6, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    perturbed = images + reach * torch.randn(images.shape, generator=generator)
    found = BALLS[norm].project(perturbed, images, epsilon)
    assert distance(found, images, norm).max() <= epsilon + (ROUNDING if norm == "linf" else 0)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_images_in_ball_and_box_stay_as_they_are(norm: str) -> None:
    images = torch.rand(4, 3, 5, 6)
    inside = (images + 0.01 * torch.randn(images.shape)).clamp(0, 1)
    torch.testing.assert_close(BALLS[norm].project(inside, images, 0.5), inside, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point(norm: str) -> None:
    """Against a general solver of problems with bounds and constraints."""
    images = torch.tensor([0.0, 0.05, 0.5, 0.9, 1.0, 0.3]).reshape(1, 1, 2, 3)
    perturbed = images + torch.tensor([-0.7, -0.5, 0.9, 0.6, 0.2, -0.1]).reshape(1, 1, 2, 3)
    clean, aim = (tensor.flatten().double().numpy() for tensor in (images, perturbed))
    epsilon = EPSILONS[norm]
    low, high = (clean - epsilon, clean + epsilon) if norm == "linf" else (clean * 0, clean * 0 + 1)
    ball = {"type": "ineq", "fun": lambda point: epsilon**2 - np.square(point - clean).sum()}
    solved = minimize(
        lambda point: np.square(point - aim).sum(),
        clean,
        bounds=list(zip(low.clip(0, 1), high.clip(0, 1), strict=True)),
        constraints=[ball] if norm == "l2" else [],
        options={"ftol": 1e-12},
    )
    found = BALLS[norm].project(perturbed, images, epsilon).flatten()
    torch.testing.assert_close(found.double(), torch.from_numpy(solved.x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30], ids=str)
def test_direction_in_l2_has_length_one_however_small_the_gradient(scale: float) -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0, 0, 0, 0], gradient[0, 0, 1, 1] = scale, -scale
    root = 0.5**0.5
    expected = torch.tensor([[root, 0, 0, -root], [0, 0, 0, 0]]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(unit_l2(gradient), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball_evenly(norm: str) -> None:
    """Of uniform points, the norms over epsilon, to the power of the dimension, are uniform; so are their signs."""
    images, ids = torch.full((2000, 1, 1, 3), 0.5), torch.arange(2000)
    found = BALLS[norm].random(images, 0.3, 7, ids)
    assert kstest((distance(found, images, norm) / 0.3) ** 3, "uniform").pvalue > 1e-3
    assert (found > images).float().mean((0, 1, 2)).sub(0.5).abs().max() < 0.05


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_point_belongs_to_seed_and_image(norm: str) -> None:
    images, ids = torch.rand(3, 1, 4, 4), torch.tensor([5, 9, 2])
    together = BALLS[norm].random(images, 0.1, 1, ids)
    assert torch.equal(together[1:2], BALLS[norm].random(images[1:2], 0.1, 1, ids[1:2]))
    assert not torch.equal(together, BALLS[norm].random(images, 0.1, 2, ids))
    same = BALLS[norm].random(images[:1].expand(3, -1, -1, -1), 0.1, 1, ids)
    assert not torch.equal(same[0], same[1])


@given(epsilon=st.floats(0, 0.5), seed=st.integers(0, 2**32))
def test_eight_bits_add_at_most_half_a_step(epsilon: float, seed: int) -> None:
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    found = round_to_8_bits(BALLS["linf"].random(images, epsilon, seed, torch.arange(4)))
    assert distance(found, images, "linf").max() <= epsilon + 1 / 510 + ROUNDING
    torch.testing.assert_close(found * 255, (found * 255).round(), rtol=0, atol=1e-4)
