"""Auto-PGD: published checkpoints and step sizes, the published algorithm line by line, and known optima."""

import pytest
import torch
from torch import Tensor, nn

from attacked_models import Broken, OneForm, distance
from models import random_images, small_defense
from neuroae.attacks import APGDSettings, PGDSettings, apgd, mean_margin, mean_probabilities, pgd
from neuroae.attacks.apgd import StepSizes, checkpoints
from neuroae.attacks.balls import BALLS, NORMS
from neuroae.attacks.losses import LOSS_NAMES, cross_entropy, margin

EPSILONS = {"linf": 0.25, "l2": 1.0}


def bent_network() -> nn.Module:
    """Returns a network whose gradient changes within the ball, so that long steps overshoot."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).eval()
    network[1].weight.data *= 6
    return network


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (100, {22, 41, 57, 70, 80, 87, 93, 99}),
        (20, {5, 9, 12, 14, 16, 18, 19, 20}),
        (1, {1}),
    ],
)
def test_checkpoints_are_the_published_ones(steps: int, expected: set[int]) -> None:
    assert checkpoints(steps) == expected


def test_step_sizes_are_halved_where_few_steps_rise_or_the_highest_loss_stays() -> None:
    """Checkpoints after steps 22 and 41 of 100; of 22 steps at least 16.5 must rise, of 19 at least 14.25."""
    start = torch.zeros(4)
    sizes = StepSizes(APGDSettings(epsilon=0.5, steps=100), start)
    rises = torch.tensor([[17, 16, 22, 22], [15, 14, 19, 0]])
    best = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 1.0, 0.0]])
    halved = []
    for step in range(1, 42):
        period = int(step > 22)
        step_of_period = step - 22 * period
        is_halved = sizes.halve(step, step_of_period <= rises[period], best[period])
        if step in (22, 41):
            halved.append(is_halved.tolist())
        else:
            assert not is_halved.any()
    assert halved == [[False, True, False, True], [False, True, True, True]]
    assert sizes.current.tolist() == [1.0, 0.25, 0.5, 0.25]


def test_after_a_halving_the_highest_loss_may_stay_once() -> None:
    sizes = StepSizes(APGDSettings(epsilon=0.5, steps=100), torch.zeros(1))
    halved = [bool(sizes.halve(step, torch.tensor([True]), torch.zeros(1))) for step in range(1, 71)]
    assert [step for step, is_halved in enumerate(halved, 1) if is_halved] == [22, 57]


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("norm", NORMS)
def test_apgd_reaches_the_optimum_of_a_linear_form(norm: str, loss: str, targeted: bool) -> None:
    images, _, ids = random_images()
    model, epsilon = OneForm().eval(), EPSILONS[norm]
    targets = torch.ones_like(ids) if targeted else None
    budget = APGDSettings(epsilon, 20, realizations=1, loss=loss, norm=norm)
    perturbed = apgd(model, images, torch.zeros_like(ids), budget, seed=0, image_ids=ids, targets=targets).images
    torch.testing.assert_close(perturbed, model.optimum(images, epsilon, norm), rtol=0, atol=1e-5)
    assert distance(perturbed, images, norm).max() <= epsilon + 2**-24


def published(model: nn.Module, image: Tensor, label: Tensor, epsilon: float, steps: int, norm: str) -> Tensor:
    """Returns the point of the highest margin loss for one image, by algorithm 1 as printed in the paper."""

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        leaf = point.clone().requires_grad_()
        loss = margin(model(leaf), label).sum()
        return loss.item(), torch.autograd.grad(loss, leaf)[0]

    def project(point: Tensor) -> Tensor:
        return BALLS[norm].project(point, image, epsilon)

    size, momentum, rho = 2 * epsilon, 0.75, 0.75
    points = [image]
    height, gradient = evaluate(image)
    heights, best, best_point, best_gradient = [height], height, image, gradient
    best_before, size_before, last = best, size, 0
    for step in range(1, steps + 1):
        current, previous = points[-1], points[-2] if step > 1 else points[-1]
        share = momentum if step > 1 else 1.0
        aim = project(current + size * BALLS[norm].direction(gradient))
        following = project(current + share * (aim - current) + (1 - share) * (current - previous))
        height, gradient = evaluate(following)
        heights.append(height)
        if height > best:
            best, best_point, best_gradient = height, following, gradient
        if step in checkpoints(steps):
            rises = sum(heights[index + 1] > heights[index] for index in range(last, step))
            halve = rises < rho * (step - last) or (size == size_before and best == best_before)
            size_before, best_before, last = size, best, step
            if halve:
                size, following, gradient, heights[-1] = size / 2, best_point, best_gradient, best
        points.append(following)
    return best_point


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_is_the_published_algorithm_on_every_image(norm: str) -> None:
    model, (images, labels, ids) = bent_network(), random_images()
    budget = APGDSettings(EPSILONS[norm], 30, realizations=1, loss="margin", norm=norm)
    perturbed = apgd(model, images, labels, budget, seed=0, image_ids=ids).images
    expected = [
        published(model, image[None], label[None], EPSILONS[norm], 30, norm)
        for image, label in zip(images, labels, strict=True)
    ]
    torch.testing.assert_close(perturbed, torch.cat(expected), rtol=0, atol=1e-3)


def test_apgd_raises_the_loss_of_a_network_further_than_pgd() -> None:
    """PGD has long steps here, which overshoot."""
    model, (images, labels, ids) = bent_network(), random_images(40)
    budget = APGDSettings(0.1, 50, realizations=1, loss="margin")
    ours = apgd(model, images, labels, budget, seed=0, image_ids=ids).images
    theirs = pgd(model, images, labels, PGDSettings(0.1, 0.1, 50, 1, 1, loss="margin"), seed=0, image_ids=ids).images
    margins = [mean_margin(model, perturbed, labels, None, 1, 0, ids) for perturbed in (ours, theirs)]
    assert float((margins[0] - margins[1]).mean()) > 0.01


class Crowd(nn.Module):
    """Classifies one pixel. At 0.5 one class is ahead of the true one. At 0.6 none is, but six are close, and the
    loss is higher."""

    def forward(self, images: Tensor) -> Tensor:
        offset = images[:, 0, 0, 0] - 0.5
        return torch.stack([0 * offset, 0.1 - 10 * offset.abs(), *([4 * offset - 0.5] * 6)], 1)


def test_a_point_that_fools_wins_over_a_point_of_higher_loss() -> None:
    model, clean, ids = Crowd().eval(), torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    lower, higher = (cross_entropy(model(pixel), ids) for pixel in (clean, clean + 0.1))
    assert higher > lower
    perturbed = apgd(model, clean, ids, APGDSettings(0.1, 10, realizations=1), seed=0, image_ids=ids).images
    assert float(margin(model(perturbed), ids)) == pytest.approx(0.1)


def test_draws_with_nan_do_not_stop_an_attack() -> None:
    """The first of two draws at the image itself, and both draws of the third step, are NaN."""
    images, _, ids = random_images()
    model = Broken({0, 6, 7}).eval()
    result = apgd(model, images, torch.zeros_like(ids), APGDSettings(0.25, 20, realizations=2), seed=0, image_ids=ids)
    torch.testing.assert_close(result.images, model.optimum(images, 0.25, "linf"), rtol=0, atol=1e-5)
    assert result.invalid.tolist() == [3] * 6


def test_restarts_share_draws_alone_and_the_worst_is_returned() -> None:
    model, (images, labels, ids) = bent_network(), random_images()
    single, several = (
        apgd(model, images, labels, APGDSettings(0.2, 3, restarts, 1), seed=0, image_ids=ids).images
        for restarts in (1, 6)
    )
    margins = [mean_margin(model, perturbed, labels, None, 1, 0, ids) for perturbed in (single, several)]
    assert (margins[1] >= margins[0] - 1e-6).all()
    assert (margins[1] > margins[0] + 1e-4).any()


def test_apgd_is_no_weaker_than_pgd_on_a_model_that_draws() -> None:
    """Both take the same passes. The highest of many noisy losses is a lucky draw, to which APGD must not go back."""
    model, (images, _, ids) = small_defense(16, 3, dropout_p=0.8), random_images(24, 3, 16)
    model.classifier.layer.weight.data *= 10
    labels = mean_probabilities(model, images, 50, 77, ids).argmax(-1)
    budgets = APGDSettings(0.06, 40, realizations=10, loss="margin"), PGDSettings(0.06, 0.06 / 8, 40, 1, 10)
    batches = [
        attack(model, images, labels, budget, seed=0, image_ids=ids).images
        for attack, budget in zip((apgd, pgd), budgets, strict=True)
    ]
    ours, theirs = (mean_margin(model, perturbed, labels, None, 200, 5, ids) for perturbed in batches)
    assert float((ours - theirs).mean()) > 0


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_comparisons_on_fresh_draws_change_nothing_for_a_deterministic_model(targeted: bool) -> None:
    model, (images, labels, ids) = bent_network(), random_images()
    targets = (labels + 3) % 10 if targeted else None
    budgets = [APGDSettings(0.2, 30, 2, 1, loss="margin", fresh=fresh) for fresh in (True, False)]
    first, second = (apgd(model, images, labels, budget, seed=0, image_ids=ids, targets=targets) for budget in budgets)
    assert torch.equal(first.images, second.images)
    assert (first.forwards, second.forwards) == (2 * 2 * (1 + len(checkpoints(30))), 2 * 2)


def test_draws_of_steps_checkpoints_and_selection_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: dict[bool, list[int]] = {True: [], False: []}
    model, (images, labels, ids) = small_defense(), random_images()
    original = type(model).realize

    def recorded(self, selection, seed, image_ids, start, count, *rest):  # type: ignore[no-untyped-def]
        seeds[torch.is_grad_enabled()].extend([int(seed)] * count)
        return original(self, selection, seed, image_ids, start, count, *rest)

    monkeypatch.setattr(type(model), "realize", recorded)
    budget = APGDSettings(steps=3, restarts=2, realizations=4, chunk=1)
    steps: list[int] = []
    result = apgd(model, images, labels, budget, seed=0, image_ids=ids, progress=steps.append)
    gradients, forwards = seeds[True], seeds[False]
    assert len(gradients) == 4 * 4
    assert len(set(gradients)) == 4
    assert checkpoints(3) == {1, 2, 3}
    compared, selection = forwards[: 3 * 2 * 4], forwards[3 * 2 * 4 :]
    assert [len(set(compared[first : first + 8])) for first in (0, 8, 16)] == [1] * 3
    assert len(set(compared)) == 3
    assert len(selection) == 2 * 2 * 4
    assert len(set(selection)) == 1
    assert not set(forwards) & set(gradients)
    assert not set(compared) & set(selection)
    assert result.gradients == budget.gradients == 4 * 2 * 4
    # At checkpoints both restarts are one batch.
    assert result.forwards == budget.forwards == 2 * (3 + 1) * 2 * 4
    assert sum(steps) == result.gradients * len(images)


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_on_an_image_does_not_depend_on_its_batch(norm: str) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = APGDSettings(0.1, steps=8, restarts=2, realizations=3, norm=norm)
    together, again = (apgd(model, images, labels, budget, seed=0, image_ids=ids).images for _ in range(2))
    alone = apgd(model, images[2:3], labels[2:3], budget, seed=0, image_ids=ids[2:3]).images
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)
    assert torch.equal(again, together)
