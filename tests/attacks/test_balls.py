"""Balls and box: projections are inside and nearest, and random points fill the ball."""

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
    projected = BALLS[norm].project(perturbed, images, epsilon)
    assert distance(projected, images, norm).max() <= epsilon + (ROUNDING if norm == "linf" else 0)
    assert 0 <= float(projected.min()) <= float(projected.max()) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_images_in_ball_and_box_do_not_change(norm: str) -> None:
    images = torch.rand(4, 3, 5, 6)
    inside = (images + 0.01 * torch.randn(images.shape)).clamp(0, 1)
    torch.testing.assert_close(BALLS[norm].project(inside, images, 0.5), inside, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point(norm: str) -> None:
    """Compares with a general solver for bounds and constraints."""
    images = torch.tensor([0.0, 0.05, 0.5, 0.9, 1.0, 0.3]).reshape(1, 1, 2, 3)
    perturbed = images + torch.tensor([-0.7, -0.5, 0.9, 0.6, 0.2, -0.1]).reshape(1, 1, 2, 3)
    clean, goal = (tensor.flatten().double().numpy() for tensor in (images, perturbed))
    epsilon = EPSILONS[norm]
    low, high = (clean - epsilon, clean + epsilon) if norm == "linf" else (clean * 0, clean * 0 + 1)
    ball = {"type": "ineq", "fun": lambda point: epsilon**2 - np.square(point - clean).sum()}
    solution = minimize(
        lambda point: np.square(point - goal).sum(),
        clean,
        bounds=list(zip(low.clip(0, 1), high.clip(0, 1), strict=True)),
        constraints=[ball] if norm == "l2" else [],
        options={"ftol": 1e-12},
    )
    projected = BALLS[norm].project(perturbed, images, epsilon).flatten()
    torch.testing.assert_close(projected.double(), torch.from_numpy(solution.x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30], ids=str)
def test_the_l2_direction_has_length_one_for_gradients_of_any_size(scale: float) -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0, 0, 0, 0], gradient[0, 0, 1, 1] = scale, -scale
    root = 0.5**0.5
    expected = torch.tensor([[root, 0, 0, -root], [0, 0, 0, 0]]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(unit_l2(gradient), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball_evenly(norm: str) -> None:
    """For uniform points in three dimensions, (norm / epsilon)^3 is uniform, and signs are equally likely."""
    images, ids = torch.full((2000, 1, 1, 3), 0.5), torch.arange(2000)
    points = BALLS[norm].random(images, 0.3, 7, ids)
    assert kstest((distance(points, images, norm) / 0.3) ** 3, "uniform").pvalue > 1e-3
    assert (points > images).float().mean((0, 1, 2)).sub(0.5).abs().max() < 0.05


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_point_follows_from_seed_and_image_id(norm: str) -> None:
    images, ids = torch.rand(3, 1, 4, 4), torch.tensor([5, 9, 2])
    together = BALLS[norm].random(images, 0.1, 1, ids)
    assert torch.equal(together[1:2], BALLS[norm].random(images[1:2], 0.1, 1, ids[1:2]))
    assert not torch.equal(together, BALLS[norm].random(images, 0.1, 2, ids))
    same = BALLS[norm].random(images[:1].expand(3, -1, -1, -1), 0.1, 1, ids)
    assert not torch.equal(same[0], same[1])


@given(epsilon=st.floats(0, 0.5), seed=st.integers(0, 2**32))
def test_eight_bits_add_at_most_half_a_step(epsilon: float, seed: int) -> None:
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    rounded = round_to_8_bits(BALLS["linf"].random(images, epsilon, seed, torch.arange(4)))
    assert distance(rounded, images, "linf").max() <= epsilon + 1 / 510 + ROUNDING
    torch.testing.assert_close(rounded * 255, (rounded * 255).round(), rtol=0, atol=1e-4)
