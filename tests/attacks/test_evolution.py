"""The evolution strategy: it climbs to a known optimum, stays in the ball, and each image is on its own."""

import pytest
import torch
from torch import nn

from attacked_models import Noisy, OneForm, distance
from models import random_images
from neuroae.attacks import EvolutionSettings, evolution

ROUNDING = 2**-24


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_comes_near_the_optimum_of_a_linear_form(norm: str) -> None:
    images, _, ids = random_images(2, 1, 8)
    torch.manual_seed(0)
    model, labels = OneForm().eval(), torch.zeros(2, dtype=torch.int64)
    epsilon = 0.1 if norm == "linf" else 0.5
    settings = EvolutionSettings(epsilon, epsilon / 4, steps=30, pairs=20, coarseness=1, sigma=0.05, norm=norm)
    perturbed = evolution(model, images, labels, settings, seed=0, image_ids=ids).images
    assert distance(perturbed, images, norm).max() <= epsilon + ROUNDING
    fall = model(images)[:, 0] - model(perturbed)[:, 0]
    most = model(images)[:, 0] - model(model.optimum(images, epsilon, norm))[:, 0]
    assert (fall > 0.8 * most).all()


def test_an_image_is_searched_alone_as_in_a_batch() -> None:
    images, labels, ids = random_images(3, 1, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    settings = EvolutionSettings(steps=3, pairs=4)
    together = evolution(model, images, labels, settings, seed=0, image_ids=ids).images
    alone = evolution(model, images[1:2], labels[1:2], settings, seed=0, image_ids=ids[1:2]).images
    torch.testing.assert_close(together[1:2], alone)


def test_both_sides_of_a_pair_see_the_same_draws() -> None:
    model = Noisy().eval()
    images, labels, ids = random_images(2, 1, 8)
    evolution(model, images, labels, EvolutionSettings(steps=1, pairs=3, draws=2), seed=0, image_ids=ids)
    drawn = torch.tensor(model.drawn).view(4, 2, 2)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert len(drawn[:, 0].unique()) == 8


def test_it_starts_where_it_is_told_and_never_ends_worse() -> None:
    images, labels, ids = random_images(2, 1, 8)
    torch.manual_seed(0)
    model = OneForm().eval()
    labels = torch.zeros_like(labels)
    start = model.optimum(images, 8 / 255, "linf")
    settings = EvolutionSettings(steps=1, pairs=1)
    perturbed = evolution(model, images, labels, settings, seed=0, image_ids=ids, start=start).images
    assert (model(perturbed)[:, 0] <= model(start)[:, 0]).all()


def test_a_start_outside_the_ball_is_projected_and_one_of_another_shape_refused() -> None:
    images, labels, ids = random_images(2, 1, 8)
    model, labels, settings = OneForm().eval(), torch.zeros_like(labels), EvolutionSettings(steps=1, pairs=1)
    start = model.optimum(images, 0.5, "linf")
    perturbed = evolution(model, images, labels, settings, seed=0, image_ids=ids, start=start).images
    assert distance(perturbed, images, "linf").max() <= settings.epsilon + ROUNDING
    with pytest.raises(ValueError, match=r"start is .*expected"):
        evolution(model, images, labels, settings, seed=0, image_ids=ids, start=start[:1])


def test_passes_are_counted() -> None:
    images, labels, ids = random_images(2, 1, 8)
    counted: list[int] = []
    settings = EvolutionSettings(steps=2, pairs=3)
    model = OneForm().eval()
    perturbed = evolution(model, images, labels % 4, settings, seed=0, image_ids=ids, progress=counted.append)
    assert sum(counted) == 2 * perturbed.forwards == 2 * settings.forwards
