"""The attacks: known optima, ball and box, and what EOT promises about seeds, chunks and averages."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models import Linear, random_images, small_defense
from neuroae.attacks import PGDSettings, eot_gradient, mean_probabilities, pgd
from neuroae.attacks.eot import AVERAGES

ROUNDING = 2**-24


class Noisy(nn.Module):
    """Draws from torch's generator, as a user's randomized model would."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images * torch.rand_like(images))


class Silent(nn.Module):
    """Its gradient is zero for images whose first pixel is 0, and not a number where that pixel is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0].detach()[:, None]
        return self.linear(images) * first * torch.where(first == 1, torch.nan, 1.0)


@settings(max_examples=25)
@given(
    epsilon=st.floats(0, 0.5),
    steps=st.integers(1, 6),
    restarts=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_perturbations_stay_in_ball_and_box(epsilon: float, steps: int, restarts: int, seed: int) -> None:
    images, labels, ids = random_images()
    images[0], images[1] = 0, 1
    budget = PGDSettings(epsilon, 0.3, steps, restarts, realizations=2)
    found = pgd(small_defense(), images, labels, budget, seed=seed, image_ids=ids)
    assert float((found.images.double() - images.double()).abs().max()) <= epsilon + ROUNDING
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    assert found.passes == len(images) * steps * restarts * 2


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("restarts", [1, 2])
def test_pgd_reaches_the_optimum_of_a_linear_model(average: str, restarts: int) -> None:
    """With two classes the loss rises with one linear form, so each pixel goes as far as ball and box allow."""
    images, _, ids = random_images()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    model = Linear(1, 8, 2).eval()
    budget = PGDSettings(epsilon=0.25, step_size=0.05, steps=10, restarts=restarts, realizations=1, average=average)
    found = pgd(model, images, labels, budget, seed=0, image_ids=ids).images
    rise = (model.layer.weight[1 - labels] - model.layer.weight[labels]).reshape(images.shape).sign()
    expected = (images + 0.25 * rise).clamp(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("average", AVERAGES)
def test_streamed_gradient_is_that_of_all_realizations_at_once(average: str) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    found = eot_gradient(model, images, labels, realizations=7, seed=5, image_ids=ids, average=average)
    leaf = images.clone().requires_grad_()
    each = []
    for realization in range(7):
        logits = model.realize(model.encoder.select(leaf), 5, ids, realization, 1)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), leaf)
        each.append(gradient)
    if average == "normalized":
        each = [gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None] for gradient in each]
    torch.testing.assert_close(found.gradient, torch.stack(each).mean(0), rtol=1e-4, atol=1e-7)
    assert found.passes == 7 * len(images)


@pytest.mark.parametrize("model", [small_defense, Noisy], ids=["defense", "draws from torch's generator"])
@pytest.mark.parametrize("chunk", [2, 3, 7, 50])
def test_chunk_size_changes_nothing_but_rounding(model: type[nn.Module], chunk: int) -> None:
    attacked, (images, labels, ids) = model().eval(), random_images()
    arguments = {"realizations": 7, "seed": 5, "image_ids": ids}
    single = eot_gradient(attacked, images, labels, chunk=1, **arguments)
    several = eot_gradient(attacked, images, labels, chunk=chunk, **arguments)
    torch.testing.assert_close(several.gradient, single.gradient, rtol=1e-4, atol=1e-6)


def test_two_stretches_of_realizations_make_up_the_whole() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    whole = eot_gradient(model, images, labels, realizations=6, seed=5, image_ids=ids).gradient
    parts = [
        eot_gradient(model, images, labels, realizations=3, seed=5, image_ids=ids, start=start).gradient
        for start in (0, 3)
    ]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_chunk_is_gone_before_the_next_one_comes(average: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So memory does not grow with the number of realizations."""
    model, (images, labels, ids) = small_defense(), random_images()
    realize, living = type(model).realize, []

    def recorded(self, *arguments):  # type: ignore[no-untyped-def]
        assert not [reference for reference in living if reference() is not None]
        logits = realize(self, *arguments)
        living.extend(weakref.ref(tensor) for tensor in (logits, arguments[-1]))
        return logits

    monkeypatch.setattr(type(model), "realize", recorded)
    eot_gradient(model, images, labels, realizations=4, seed=0, image_ids=ids, average=average)
    assert len(living) == 8


@pytest.mark.parametrize("average", AVERAGES)
def test_realizations_without_a_gradient_are_counted_and_do_no_harm(average: str) -> None:
    images, labels, ids = random_images()
    images[:, 0, 0, 0] = 0.5
    model = Silent().eval()
    arguments = {"realizations": 3, "seed": 0, "image_ids": ids, "average": average}
    before = eot_gradient(model, images, labels, **arguments)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0, 1
    after = eot_gradient(model, images, labels, **arguments)
    assert (before.zero, before.invalid) == (0, 0)
    assert (after.zero, after.invalid) == (3, 3)
    assert torch.equal(after.gradient[:2], torch.zeros_like(after.gradient[:2]))
    assert torch.equal(after.gradient[2:], before.gradient[2:])
    found = pgd(model, images, labels, PGDSettings(steps=2, realizations=3), seed=0, image_ids=ids)
    assert (found.zero, found.invalid) == (6, 6)


def test_the_gradient_of_a_confident_model_is_not_lost() -> None:
    """Its entries are near 1e-27, so their squares are zero in float32.

    Where the true class has probability 1 but for rounding, only the other classes' rows push.
    """
    model, (images, _, ids) = Linear(1, 8, 2).eval(), random_images()
    model.layer.bias.data = torch.tensor([60.0, 0.0])
    found = eot_gradient(model, images, torch.zeros(6).long(), realizations=2, seed=0, image_ids=ids)
    rise = model.layer.weight[1].detach()
    assert found.zero == 0
    torch.testing.assert_close(found.gradient.flatten(1), (rise / rise.norm()).expand(6, -1), rtol=1e-4, atol=1e-6)


def test_normalized_average_weighs_realizations_equally() -> None:
    """Scaling the loss of a deterministic model scales the mean and leaves the normalized average at length 1."""
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    found = eot_gradient(model, images, labels, realizations=4, seed=0, image_ids=ids).gradient
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.ones(len(images)))


def test_every_step_and_restart_draws_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    model, (images, labels, ids) = small_defense(), random_images()
    original = type(model).realize

    def recorded(self, selection, seed, *rest):  # type: ignore[no-untyped-def]
        seeds.append(int(seed))
        return original(self, selection, seed, *rest)

    monkeypatch.setattr(type(model), "realize", recorded)
    pgd(model, images, labels, PGDSettings(steps=3, restarts=2, realizations=4), seed=0, image_ids=ids)
    gradients, selection = seeds[: 3 * 2 * 4], seeds[3 * 2 * 4 :]
    assert len(set(gradients)) == 3 * 2
    assert len(set(selection)) == 1
    assert not set(selection) & set(gradients)
    masks = [model.encoder.encode(images, seed=seed, image_ids=ids).index for seed in sorted(set(gradients))]
    assert not any(torch.equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize("model", [small_defense, Noisy], ids=["defense", "draws from torch's generator"])
def test_a_seed_repeats_an_attack_and_leaves_the_generator_alone(model: type[nn.Module]) -> None:
    attacked, (images, labels, ids) = model().eval(), random_images()
    budget = PGDSettings(steps=3, restarts=2, realizations=2)
    state = torch.random.get_rng_state()
    first, second, other = (
        pgd(attacked, images, labels, budget, seed=seed, image_ids=ids).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_image_is_attacked_alike_alone_and_among_others() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = PGDSettings(0.1, 0.02, steps=3, restarts=2, realizations=3)
    together = pgd(model, images, labels, budget, seed=0, image_ids=ids).images
    alone = pgd(model, images[2:3], labels[2:3], budget, seed=0, image_ids=ids[2:3]).images
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-6)


def test_progress_counts_every_gradient_pass() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    steps: list[int] = []
    budget = PGDSettings(steps=3, restarts=2, realizations=4)
    found = pgd(model, images, labels, budget, seed=0, image_ids=ids, progress=steps.append)
    assert steps == [4 * len(images)] * 6
    assert sum(steps) == found.passes == budget.passes * len(images)


def test_restarts_keep_the_attempt_that_hurts_most() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    single, several = (
        pgd(model, images, labels, PGDSettings(0.2, 0.05, 1, restarts, 1), seed=0, image_ids=ids).images
        for restarts in (1, 8)
    )
    true_class = [
        mean_probabilities(model, found, 1, 0, ids).gather(1, labels[:, None]) for found in (single, several)
    ]
    assert bool((true_class[1] <= true_class[0]).all())
    assert bool((true_class[1] < true_class[0]).any())


def test_attacks_lower_the_true_class_of_a_defense() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = PGDSettings(0.2, 0.05, steps=8, realizations=8)
    found = pgd(model, images, labels, budget, seed=0, image_ids=ids).images
    clean, attacked = (
        mean_probabilities(model, shown, 64, 99, ids).gather(1, labels[:, None]).mean() for shown in (images, found)
    )
    assert attacked < clean


def test_parameters_get_no_gradient_and_keep_their_flags() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    model.decoder.layer.bias.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    pgd(model, images, labels, PGDSettings(steps=1, realizations=2), seed=0, image_ids=ids)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_autoencoder_identity_follows_the_classifier_alone() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    identity = model.with_surrogate("autoencoder-identity")
    found = eot_gradient(identity, images, labels, realizations=1, seed=4, image_ids=ids, average="mean").gradient
    decoded = model.autoencode(images, 4, ids).detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(model.classifier(decoded), labels, reduction="sum"), decoded)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ensemble", [1, 4])
def test_mean_probabilities_average_the_softmax(ensemble: int) -> None:
    model, (images, _, ids) = small_defense(), random_images()
    logits = model(images, realizations=ensemble, seed=3, image_ids=ids)
    found = mean_probabilities(model, images, ensemble, 3, ids)
    torch.testing.assert_close(found, logits.softmax(-1).mean(0))


def test_a_model_in_training_mode_is_refused() -> None:
    images, labels, ids = random_images()
    with pytest.raises(ValueError, match="training mode"):
        eot_gradient(small_defense().train(), images, labels, realizations=1, seed=0, image_ids=ids)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 8}, "epsilon is 8"),
        ({"epsilon": -0.1}, "epsilon is -0.1"),
        ({"step_size": 0}, "step_size is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"realizations": 0}, "realizations is 0"),
        ({"average": "median"}, "average is 'median'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGDSettings(**settings)  # type: ignore[arg-type]
