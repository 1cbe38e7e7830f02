"""Votes of several draws, and the choice of the worst attempt by them."""

from collections.abc import Collection

import pytest
import torch
from torch import Tensor

from attacked_models import Broken, Noisy, OneForm
from models import Linear, random_images, small_defense
from neuroae.attacks import APGDSettings, PGDSettings, apgd, drawn_probabilities, mean_margin, mean_probabilities, pgd
from neuroae.attacks.restarts import worst_attempts
from neuroae.utils.contexts import autocast


@pytest.mark.parametrize("ensemble", [1, 4, 30])
def test_mean_probabilities_average_the_softmax(ensemble: int) -> None:
    model, (images, _, ids) = small_defense(), random_images()
    logits = model(images, realizations=ensemble, seed=3, image_ids=ids)
    torch.testing.assert_close(mean_probabilities(model, images, ensemble, 3, ids), logits.softmax(-1).mean(0))
    drawn = torch.stack(list(drawn_probabilities(model, images, ensemble, 3, ids)))
    torch.testing.assert_close(drawn, logits.softmax(-1))


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_margin_of_the_vote_is_that_of_the_mean_probabilities(targeted: bool) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    targets = (labels + 1) % 10
    logs = mean_probabilities(model, images, 4, 3, ids).log()
    aimed = targets if targeted else labels
    of_class = logs.gather(1, aimed[:, None])[:, 0]
    others = logs.scatter(1, aimed[:, None], -torch.inf).amax(1)
    result = mean_margin(model, images, labels, targets if targeted else None, 4, 3, ids)
    torch.testing.assert_close(result, of_class - others if targeted else others - of_class, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_the_worst_attempt_is_chosen_for_each_image(targeted: bool) -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    targets = (labels + 1) % 10 if targeted else None
    attempts = torch.rand(5, *images.shape)
    margins = torch.stack([mean_margin(model, attempt, labels, targets, 1, 0, ids) for attempt in attempts])
    worst = worst_attempts(model, attempts, labels, targets, 1, 0, ids)
    torch.testing.assert_close(mean_margin(model, worst, labels, targets, 1, 0, ids), margins.amax(0))
    assert len(set(margins.argmax(0).tolist())) > 1


def test_of_equal_attempts_the_first_is_chosen() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    model.layer.weight.data.zero_()
    attempts = torch.rand(3, *images.shape)
    assert torch.equal(worst_attempts(model, attempts, labels, None, 1, 0, ids), attempts[0])


def test_attempts_are_compared_on_common_draws() -> None:
    """Attempts differ only in a pixel with weight 0, so their margins are equal unless they get different noise."""
    model, (images, labels, ids) = Noisy().eval(), random_images()
    model.linear.layer.weight.data[:, 0] = 0
    attempts = images.repeat(4, 1, 1, 1, 1)
    attempts[:, :, 0, 0, 0] = torch.rand(4, len(images))
    assert torch.equal(worst_attempts(model, attempts, labels, None, 2, 0, ids), attempts[0])


def test_an_attempt_with_nan_in_all_draws_is_not_the_worst() -> None:
    """The second attempt of three has NaN in all draws."""
    images, labels, ids = random_images(3)
    model, broken = pair({2, 3})
    attempts = torch.rand(3, *images.shape)
    expected = worst_attempts(model, attempts[::2], labels, None, 2, 0, ids)
    assert torch.equal(worst_attempts(broken, attempts, labels, None, 2, 0, ids), expected)


def test_draws_with_nan_are_left_out_of_the_vote() -> None:
    images, labels, ids = random_images(3)
    model, broken = pair({0})
    expected = mean_margin(model, images, labels, None, 2, 0, ids)
    assert torch.equal(mean_margin(broken, images, labels, None, 3, 0, ids), expected)


def pair(broken: Collection[int]) -> tuple[OneForm, Broken]:
    """Returns a form, and the same form with NaN in some calls."""
    models = OneForm().eval(), Broken(broken).eval()
    models[1].form = models[0].form
    return models


def test_no_draws_are_refused() -> None:
    model, (images, _, ids) = small_defense(), random_images()
    with pytest.raises(ValueError, match="draws is 0"):
        mean_probabilities(model, images, 0, 0, ids)


class Precise(Linear):
    """Records of each call whether images require a gradient, and the dtype of the logits."""

    def __init__(self) -> None:
        super().__init__(1, 8, 10)
        self.calls: list[tuple[bool, torch.dtype]] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.calls.append((images.requires_grad, logits.dtype))
        return logits


@pytest.mark.parametrize(
    ("attack", "budget"),
    [(pgd, PGDSettings(steps=2, restarts=2, realizations=1)), (apgd, APGDSettings(steps=2, realizations=1))],
    ids=["pgd", "apgd"],
)
def test_attempts_are_crafted_under_autocast_and_chosen_in_float32(attack, budget) -> None:  # type: ignore[no-untyped-def]
    model, (images, labels, ids) = Precise().eval(), random_images()
    with autocast("bfloat16", images.device):
        attack(model, images, labels, budget, seed=0, image_ids=ids)
    assert set(model.calls) == {(True, torch.bfloat16), (False, torch.float32)}
