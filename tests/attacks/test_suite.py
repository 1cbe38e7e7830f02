"""The suite: which stages run and why, and what the cascade keeps of each image."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models import small_defense
from neuroae.attacks import probe, run_suite, suite_stages
from neuroae.attacks.balls import BALLS
from neuroae.attacks.stages import Effort, Stage
from neuroae.attacks.suite import Outcome, Vote

EFFORT = Effort(2, 4, 3, 2, 2, 1, 8, 4, 2, 2, 2, 4, 3)
EPSILON = 0.1


def batch(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 1, 8, 8), torch.arange(count) % 5, torch.arange(count)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)).eval()


def stages_of(model: nn.Module, norm: str = "linf", **options: object) -> list[Stage]:
    images, labels, ids = batch()
    measured = probe(model, images, labels, ids, 0, EPSILON / 2)
    return suite_stages(model, measured, epsilon=EPSILON, norm=norm, effort=EFFORT, **options)  # type: ignore[arg-type]


def run(model: nn.Module, stages: list[Stage], labels: Tensor | None = None, draws: int = 1) -> Outcome:
    images, usual, ids = batch()
    labels = usual if labels is None else labels
    return run_suite(model, images, labels, stages, seed=0, image_ids=ids, draws=draws, scoring_draws=10)


def ran(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages if not stage.skipped]


def test_a_sound_model_needs_no_repair() -> None:
    stages = stages_of(network())
    names = ["APGD, cross-entropy", "APGD, margin", "APGD, targeted 1", "APGD, targeted 2", "Square"]
    larger = ["larger budget: more steps", "larger budget: another start"]
    assert ran(stages) == names + larger
    assert all("agree" in stage.skipped for stage in stages if "tap" in stage.name)


def test_a_dead_gradient_is_repaired_first_and_not_followed() -> None:
    stages = stages_of(nn.Sequential(nn.Identity(), Rounds(), network()).eval())
    assert ran(stages)[0].startswith("straight-through")
    assert "gradients are zero" in {stage.skipped for stage in stages if stage.name.startswith("APGD")}
    assert "evolution strategy" in ran(stages)


class Rounds(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 7).round() / 7


def test_what_a_model_offers_comes_first() -> None:
    assert ran(stages_of(small_defense(classes=5).eval()))[:3] == [
        "selection (offered by the model)",
        "W-NFGA (offered by the model)",
        "W-AIGA (offered by the model)",
    ]


def test_a_function_without_gradients_is_searched_alone() -> None:
    assert ran(stages_of(network(), differentiable=False)) == ["Square", "larger budget: more queries"]


def test_larger_budgets_repeat_the_first_stage_with_one_change_each() -> None:
    stages = {stage.name: stage for stage in stages_of(small_defense(classes=5).eval())}
    first = stages["selection (offered by the model)"]
    changed = {
        "more steps": replace(first.settings, steps=3 * first.settings.steps),  # type: ignore[call-arg]
        "more realizations": replace(first.settings, realizations=3 * first.settings.realizations),  # type: ignore
        "another start": replace(first.settings, random_start=True),  # type: ignore[call-arg]
    }
    assert list(stages)[-3:] == [f"larger budget: {title}" for title in changed]
    for title, settings in changed.items():
        assert stages[f"larger budget: {title}"].settings == settings
        assert stages[f"larger budget: {title}"].model is first.model


def test_sources_are_transferred_from() -> None:
    assert "transfer from other" in ran(stages_of(network(), sources=[("other", network())]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_of_each_image_stays_in_the_ball_and_its_margin_is_true(norm: str) -> None:
    model = network()
    outcome = run(model, stages_of(model, norm))
    images, labels, _ = batch()
    size = BALLS[norm].size((outcome.perturbed.images - images).double())
    assert size.max() <= EPSILON + 2**-24
    logits = model(outcome.perturbed.images)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(outcome.margins[-1], others - logits.gather(1, labels[:, None])[:, 0])
    assert ((outcome.margins[1:] - outcome.margins[:-1]) >= 0).all()


def test_an_image_that_is_wrong_already_costs_nothing() -> None:
    model = network()
    images, _, _ = batch()
    right = model(images).argmax(1)
    labels = torch.where(torch.arange(6) < 3, right, (right + 1) % 5)
    outcome = run(model, stages_of(model), labels)
    assert (outcome.stage[3:] == 0).all()
    assert (outcome.gradients[:, 3:] == 0).all()
    assert torch.equal(outcome.perturbed.images[3:], images[3:])
    assert outcome.gradients[:, :3].sum() > 0


def test_an_image_that_left_takes_no_passes_of_later_stages() -> None:
    model = network()
    outcome = run(model, stages_of(model))
    for image, left in enumerate(outcome.stage.tolist()):
        if left > 0:
            assert outcome.gradients[left:, image].sum() == 0
            assert outcome.forwards[left:, image].sum() == 0


def test_the_losses_of_gradient_stages_are_kept_step_by_step() -> None:
    model = network()
    outcome = run(model, stages_of(model))
    losses = outcome.losses["APGD, cross-entropy"]
    assert losses.shape == (EFFORT.steps + 1, 6)
    assert losses[:, outcome.stage != 0].isfinite().all()


def test_the_same_seed_gives_the_same_bits() -> None:
    model = small_defense(classes=5).eval()
    stages = stages_of(model)
    first, second = (run(model, stages, draws=4) for _ in range(2))
    assert torch.equal(first.perturbed.images, second.perturbed.images)
    assert torch.equal(first.margins, second.margins)


def test_a_lucky_vote_does_not_end_the_attack() -> None:
    """Half of the draws say one class and half the other: the mean is a hair above, within its error."""
    torch.manual_seed(0)
    logits = torch.where(torch.rand(20, 1) < 0.5, 3.0, -3.0) * torch.tensor([1.0, -1.0])
    draws = [each[None] for each in logits]
    labels = torch.tensor([int(sum(draw.softmax(-1) for draw in draws).argmin())])
    vote = Vote.of(draws, labels, 10)
    assert vote.margin > 0
    assert not vote.fooled


def test_a_clear_vote_ends_it() -> None:
    vote = Vote.of([torch.tensor([[0.0, 2.0]])] * 5, torch.tensor([0]), 10)
    assert vote.fooled


def test_a_deterministic_answer_needs_no_bound() -> None:
    assert Vote.of([torch.tensor([[0.0, 1e-3]])], torch.tensor([0]), 10).fooled


def test_targets_that_do_not_exist_are_passed_by() -> None:
    """Two classes have one wrong one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    images, labels, ids = batch()
    measured = probe(model, images, labels % 2, ids, 0, EPSILON / 2)
    stages = suite_stages(model, measured, epsilon=1e-4, effort=replace(EFFORT, targets=3))
    outcome = run_suite(model, images, labels % 2, stages, seed=0, image_ids=ids, draws=1, scoring_draws=1)
    names = [stage.name for stage in stages]
    assert outcome.gradients[names.index("APGD, targeted 2")].sum() == 0


def test_images_that_leave_move_the_progress_to_their_end() -> None:
    model = network()
    images, labels, ids = batch()
    stages, passes = stages_of(model), []
    run_suite(model, images, labels, stages, seed=0, image_ids=ids, draws=1, scoring_draws=10, progress=passes.append)
    total = sum(stage.passes for stage in stages) * len(images)
    assert 0.8 * total <= sum(passes) <= 1.1 * total
