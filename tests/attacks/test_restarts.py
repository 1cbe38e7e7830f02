"""Restarts of gradient attacks: where they start, and how the worst one is chosen."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from attacked_models import Noisy, Witness
from models import random_images
from neuroae.attacks import APGDSettings, Perturbed, PGDSettings, apgd, mean_margin, pgd
from neuroae.attacks.balls import NORMS, random_l2, random_linf
from neuroae.attacks.settings import GradientSettings
from neuroae.utils.randomness import derive_seed

RANDOM = {"linf": random_linf, "l2": random_l2}
METHODS = pytest.mark.parametrize(("method", "kind"), [(pgd, PGDSettings), (apgd, APGDSettings)], ids=["pgd", "apgd"])


@pytest.mark.parametrize("random_start", [False, True], ids=["image", "random"])
@pytest.mark.parametrize("norm", NORMS)
@METHODS
def test_restarts_start_at_different_points(
    method: Callable[..., Perturbed], kind: Callable[..., GradientSettings], norm: str, random_start: bool
) -> None:
    """The first gradient is at the start points of all restarts at once."""
    model, (images, labels, ids) = Witness().eval(), random_images()
    budget = kind(0.3, steps=1, restarts=5, realizations=1, norm=norm, random_start=random_start)
    method(model, images, labels, budget, seed=3, image_ids=ids)
    starts = model.inputs[0].unflatten(0, (5, len(images)))
    expected = [RANDOM[norm](images, 0.3, derive_seed(3, "start", restart), ids) for restart in range(5)]
    if not random_start:
        expected[0] = images
    assert torch.equal(starts, torch.stack(expected))
    for left, right in combinations(starts, 2):
        assert (left != right).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("method", "settings", "attempts"),
    [
        (pgd, PGDSettings(steps=2, restarts=3, realizations=1, selection=7), 3),
        (apgd, APGDSettings(steps=2, restarts=3, realizations=1, selection=7), 2 * 3),
        (apgd, APGDSettings(steps=2, restarts=3, realizations=1, selection=7, fresh=False), 2 * 3),
    ],
    ids=["pgd", "apgd", "apgd without comparisons at checkpoints"],
)
def test_the_settings_give_the_number_of_draws_that_choose_the_worst(
    method: Callable[..., Perturbed], settings: GradientSettings, attempts: int
) -> None:
    """It does not depend on the draws of a gradient. Forward passes are counted, the judge's included."""
    model, judge, (images, labels, ids) = Noisy().eval(), Noisy().eval(), random_images()
    rows = [count_forward_rows(model), count_forward_rows(judge)]
    result = method(model, images, labels, settings, seed=0, image_ids=ids, judge=judge)
    assert len(judge.drawn) == attempts * 7
    assert len(set(judge.drawn)) == 7
    assert result.forwards == settings.forwards == sum(map(sum, rows)) / len(images)


def count_forward_rows(model: nn.Module) -> list[int]:
    """Returns a list to which every later call without a gradient adds the number of its images."""
    rows: list[int] = []

    def count(_model: nn.Module, arguments: tuple[Tensor]) -> None:
        if not arguments[0].requires_grad:
            rows.append(len(arguments[0]))

    model.register_forward_pre_hook(count)
    return rows


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@METHODS
def test_the_attempt_with_the_largest_margin_is_chosen(
    method: Callable[..., Perturbed], kind: Callable[..., GradientSettings], targeted: bool
) -> None:
    """On some image the other kind of margin, targeted or not, would have chosen another attempt."""
    model, judge, (images, labels, ids) = Witness().eval(), Witness().eval(), random_images()
    targets = judge(images).scatter(1, labels[:, None], -torch.inf).argsort(1)[:, 5]  # the fifth of nine wrong ones
    aim, other = (targets, None) if targeted else (None, targets)
    judge.inputs.clear()
    budget = kind(0.2, steps=1, restarts=8, realizations=1, norm="l2")
    perturbed = method(model, images, labels, budget, seed=0, image_ids=ids, targets=aim, judge=judge).images
    attempts = torch.stack(judge.inputs)
    ours, theirs = (
        torch.stack([mean_margin(judge, attempt, labels, each, 1, 0, ids) for attempt in attempts])
        for each in (aim, other)
    )
    torch.testing.assert_close(mean_margin(judge, perturbed, labels, aim, 1, 0, ids), ours.amax(0))
    of_other_choice = ours.gather(0, theirs.argmax(0)[None])[0]
    assert (of_other_choice < ours.amax(0) - 1e-4).any()
