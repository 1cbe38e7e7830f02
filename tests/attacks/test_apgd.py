"""Auto-PGD: checkpoints and step sizes as published, the published algorithm line by line, known optima."""

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
    """Its gradient changes within the ball, so that long steps overshoot."""
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


def test_step_sizes_are_halved_where_few_steps_rise_or_the_best_stands_still() -> None:
    """Checkpoints after steps 22 and 41 of 100; of 22 steps at least 16.5 must rise, of 19 at least 14.25."""
    start = torch.zeros(4)
    sizes = StepSizes(APGDSettings(epsilon=0.5, steps=100), start)
    rises = torch.tensor([[17, 16, 22, 22], [15, 14, 19, 0]])
    best = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 1.0, 0.0]])
    halved = []
    for step in range(1, 42):
        place = int(step > 22)
        since = step - 22 * place
        found = sizes.halved(step, since <= rises[place], best[place])
        if step in (22, 41):
            halved.append(found.tolist())
        else:
            assert not found.any()
    assert halved == [[False, True, False, True], [False, True, True, True]]
    assert sizes.now.tolist() == [1.0, 0.25, 0.5, 0.25]


def test_a_step_size_just_halved_may_stand_still_once() -> None:
    sizes = StepSizes(APGDSettings(epsilon=0.5, steps=100), torch.zeros(1))
    halved = [bool(sizes.halved(step, torch.tensor([True]), torch.zeros(1))) for step in range(1, 71)]
    assert [step for step, found in enumerate(halved, 1) if found] == [22, 57]


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("norm", NORMS)
def test_apgd_reaches_the_optimum_of_a_linear_form(norm: str, loss: str, targeted: bool) -> None:
    images, _, ids = random_images()
    model, epsilon = OneForm().eval(), EPSILONS[norm]
    targets = torch.ones_like(ids) if targeted else None
    budget = APGDSettings(epsilon, 20, realizations=1, loss=loss, norm=norm)
    found = apgd(model, images, torch.zeros_like(ids), budget, seed=0, image_ids=ids, targets=targets).images
    torch.testing.assert_close(found, model.optimum(images, epsilon, norm), rtol=0, atol=1e-5)
    assert distance(found, images, norm).max() <= epsilon + 2**-24


def published(model: nn.Module, image: Tensor, label: Tensor, epsilon: float, steps: int, norm: str) -> Tensor:
    """Algorithm 1 for one image and the margin loss, as it is printed; the point of the highest loss."""

    def rated(point: Tensor) -> tuple[float, Tensor]:
        leaf = point.clone().requires_grad_()
        loss = margin(model(leaf), label).sum()
        return loss.item(), torch.autograd.grad(loss, leaf)[0]

    def project(point: Tensor) -> Tensor:
        return BALLS[norm].project(point, image, epsilon)

    size, momentum, rho = 2 * epsilon, 0.75, 0.75
    points = [image]
    height, gradient = rated(image)
    heights, best, best_point, best_gradient = [height], height, image, gradient
    best_before, size_before, last = best, size, 0
    for step in range(1, steps + 1):
        here, before = points[-1], points[-2] if step > 1 else points[-1]
        share = momentum if step > 1 else 1.0
        aim = project(here + size * BALLS[norm].direction(gradient))
        following = project(here + share * (aim - here) + (1 - share) * (here - before))
        height, gradient = rated(following)
        heights.append(height)
        if height > best:
            best, best_point, best_gradient = height, following, gradient
        if step in checkpoints(steps):
            rises = sum(heights[place + 1] > heights[place] for place in range(last, step))
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
    found = apgd(model, images, labels, budget, seed=0, image_ids=ids).images
    expected = [
        published(model, image[None], label[None], EPSILONS[norm], 30, norm)
        for image, label in zip(images, labels, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-3)


def test_apgd_raises_the_loss_of_a_network_further_than_pgd() -> None:
    """With long PGD steps, which overshoot: that is what the rule is for."""
    model, (images, labels, ids) = bent_network(), random_images(40)
    budget = APGDSettings(0.1, 50, realizations=1, loss="margin")
    ours = apgd(model, images, labels, budget, seed=0, image_ids=ids).images
    theirs = pgd(model, images, labels, PGDSettings(0.1, 0.1, 50, 1, 1, loss="margin"), seed=0, image_ids=ids).images
    reached = [mean_margin(model, found, labels, None, 1, 0, ids) for found in (ours, theirs)]
    assert float((reached[0] - reached[1]).mean()) > 0.01


class Crowd(nn.Module):
    """Of a pixel: at 0.5 one class is ahead of the true one; at 0.6 none, but six are near, and the loss is higher."""

    def forward(self, images: Tensor) -> Tensor:
        away = images[:, 0, 0, 0] - 0.5
        return torch.stack([0 * away, 0.1 - 10 * away.abs(), *([4 * away - 0.5] * 6)], 1)


def test_a_point_that_fools_is_kept_where_the_loss_is_higher_elsewhere() -> None:
    model, clean, ids = Crowd().eval(), torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    lower, higher = (cross_entropy(model(pixel), ids) for pixel in (clean, clean + 0.1))
    assert higher > lower
    found = apgd(model, clean, ids, APGDSettings(0.1, 10, realizations=1), seed=0, image_ids=ids).images
    assert float(margin(model(found), ids)) == pytest.approx(0.1)


def test_a_draw_that_is_no_number_stops_nothing() -> None:
    """The first of two at the image itself, and both of the third step."""
    images, _, ids = random_images()
    model = Broken({0, 6, 7}).eval()
    found = apgd(model, images, torch.zeros_like(ids), APGDSettings(0.25, 20, realizations=2), seed=0, image_ids=ids)
    torch.testing.assert_close(found.images, model.optimum(images, 0.25, "linf"), rtol=0, atol=1e-5)
    assert found.invalid.tolist() == [3] * 6


def test_restarts_share_nothing_but_draws_and_the_worst_is_kept() -> None:
    model, (images, labels, ids) = bent_network(), random_images()
    single, several = (
        apgd(model, images, labels, APGDSettings(0.2, 3, restarts, 1), seed=0, image_ids=ids).images
        for restarts in (1, 6)
    )
    reached = [mean_margin(model, found, labels, None, 1, 0, ids) for found in (single, several)]
    assert (reached[1] >= reached[0] - 1e-6).all()
    assert (reached[1] > reached[0] + 1e-4).any()


def test_apgd_is_no_weaker_than_pgd_on_a_model_that_draws() -> None:
    """At the same passes. The highest of many noisy losses is a lucky draw, to which no step should lead back."""
    model, (images, _, ids) = small_defense(16, 3, dropout_p=0.8), random_images(24, 3, 16)
    model.classifier.layer.weight.data *= 10
    labels = mean_probabilities(model, images, 50, 77, ids).argmax(-1)
    budgets = APGDSettings(0.06, 40, realizations=10, loss="margin"), PGDSettings(0.06, 0.06 / 8, 40, 1, 10)
    found = [
        attack(model, images, labels, budget, seed=0, image_ids=ids).images
        for attack, budget in zip((apgd, pgd), budgets, strict=True)
    ]
    ours, theirs = (mean_margin(model, one, labels, None, 200, 5, ids) for one in found)
    assert float((ours - theirs).mean()) > 0


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_the_rule_for_models_that_draw_changes_nothing_where_none_are_drawn(targeted: bool) -> None:
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
    found = apgd(model, images, labels, budget, seed=0, image_ids=ids, progress=steps.append)
    gradients, answers = seeds[True], seeds[False]
    assert len(gradients) == 4 * 4
    assert len(set(gradients)) == 4
    assert checkpoints(3) == {1, 2, 3}
    compared, selection = answers[: 3 * 2 * 4], answers[3 * 2 * 4 :]
    assert [len(set(compared[place : place + 8])) for place in (0, 8, 16)] == [1] * 3
    assert len(set(compared)) == 3
    assert len(selection) == 2 * 2 * 4
    assert len(set(selection)) == 1
    assert not set(answers) & set(gradients)
    assert not set(compared) & set(selection)
    assert found.gradients == budget.gradients == 4 * 2 * 4
    # Both restarts are one batch at checkpoints.
    assert found.forwards == budget.forwards == 2 * (3 + 1) * 2 * 4
    assert sum(steps) == found.gradients * len(images)


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_is_attacked_alike_alone_and_among_others(norm: str) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = APGDSettings(0.1, steps=8, restarts=2, realizations=3, norm=norm)
    together, again = (apgd(model, images, labels, budget, seed=0, image_ids=ids).images for _ in range(2))
    alone = apgd(model, images[2:3], labels[2:3], budget, seed=0, image_ids=ids[2:3]).images
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)
    assert torch.equal(again, together)
