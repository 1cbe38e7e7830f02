"""PGD: known optima, ball and box, fresh draws, restarts, and independence of the batch."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attacked_models import Noisy, OneForm, Silent, distance
from models import Linear, random_images, small_defense
from neuroae.attacks import PGDSettings, mean_margin, mean_probabilities, pgd, round_to_8_bits
from neuroae.attacks.balls import NORMS, random_linf
from neuroae.attacks.eot import AVERAGES
from neuroae.attacks.losses import LOSS_NAMES
from neuroae.utils.randomness import derive_seed

ROUNDING = 2**-24
EPSILONS = {"linf": 0.25, "l2": 1.0}


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=15)
@given(
    epsilon=st.floats(0, 0.5),
    steps=st.integers(1, 4),
    restarts=st.integers(1, 3),
    random_start=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_perturbations_stay_in_ball_and_box(
    norm: str, epsilon: float, steps: int, restarts: int, random_start: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    images, labels, ids = random_images()
    images = (images * 255).round() / 255
    images[0], images[1] = 0, 1
    budget = PGDSettings(epsilon, 0.3, steps, restarts, 2, norm=norm, random_start=random_start)
    perturbed = pgd(small_defense(), images, labels, budget, seed=seed, image_ids=ids).images
    assert distance(perturbed, images, norm).max() <= epsilon + ROUNDING
    assert 0 <= float(perturbed.min()) <= float(perturbed.max()) <= 1
    if norm == "linf":
        assert distance(round_to_8_bits(perturbed), images, norm).max() <= epsilon + 1 / 510 + ROUNDING


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_reaches_the_optimum_of_a_linear_form(norm: str, loss: str, targeted: bool) -> None:
    images, _, ids = random_images()
    labels = torch.zeros_like(ids)
    model, epsilon = OneForm().eval(), EPSILONS[norm]
    budget = PGDSettings(epsilon, epsilon / 2, 40, realizations=1, loss=loss, norm=norm)
    targets = torch.ones_like(ids) if targeted else None
    perturbed = pgd(model, images, labels, budget, seed=0, image_ids=ids, targets=targets).images
    torch.testing.assert_close(perturbed, model.optimum(images, epsilon, norm), rtol=0, atol=1e-5)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("restarts", [1, 3])
def test_neither_average_nor_restarts_lead_away_from_the_optimum(average: str, restarts: int) -> None:
    images, _, ids = random_images()
    model = OneForm().eval()
    budget = PGDSettings(0.25, 0.05, 10, restarts, 2, average)
    perturbed = pgd(model, images, torch.zeros_like(ids), budget, seed=0, image_ids=ids).images
    torch.testing.assert_close(perturbed, model.optimum(images, 0.25, "linf"), rtol=0, atol=1e-6)


def test_fgsm_is_one_step_along_the_sign() -> None:
    images, _, ids = random_images()
    model = OneForm().eval()
    result = pgd(model, images, torch.zeros_like(ids), PGDSettings.fgsm(0.1, 1), seed=0, image_ids=ids)
    torch.testing.assert_close(result.images, model.optimum(images, 0.1, "linf"), rtol=0, atol=1e-7)
    assert result.gradients == 1


def test_r_fgsm_is_a_longer_step_from_a_random_point_clipped_to_the_ball() -> None:
    images, _, ids = random_images()
    model = OneForm().eval()
    perturbed = pgd(model, images, torch.zeros_like(ids), PGDSettings.r_fgsm(0.1, 1), seed=3, image_ids=ids).images
    start = random_linf(images, 0.1, derive_seed(3, "start", 0), ids)
    moved = start - 0.125 * model.form.detach().sign()
    expected = torch.minimum(torch.maximum(moved, images - 0.1), images + 0.1).clamp(0, 1)
    torch.testing.assert_close(perturbed, expected, rtol=0, atol=1e-7)
    assert not torch.allclose(perturbed, model.optimum(images, 0.1, "linf"), atol=1e-3)


def test_targeted_attacks_raise_the_target_and_untargeted_ones_lower_the_true_class() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    targets = (labels + 5) % 10
    budget = PGDSettings(0.2, 0.05, steps=8, realizations=8)
    clean = mean_probabilities(model, images, 64, 99, ids)
    for aim in (None, targets):
        perturbed = pgd(model, images, labels, budget, seed=0, image_ids=ids, targets=aim).images
        moved = mean_probabilities(model, perturbed, 64, 99, ids) - clean
        if aim is None:
            assert (moved.gather(1, labels[:, None]) < 0).all()
        else:
            assert (moved.gather(1, targets[:, None]) > 0).all()


def test_every_step_has_fresh_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    model, (images, labels, ids) = small_defense(), random_images()
    original = type(model).realize

    def recorded(self, selection, seed, image_ids, start, count, *rest):  # type: ignore[no-untyped-def]
        seeds.extend([int(seed)] * count)
        return original(self, selection, seed, image_ids, start, count, *rest)

    monkeypatch.setattr(type(model), "realize", recorded)
    pgd(model, images, labels, PGDSettings(steps=3, restarts=2, realizations=4, chunk=1), seed=0, image_ids=ids)
    gradients, selection = seeds[: 3 * 4], seeds[3 * 4 :]
    assert len(selection) == 2 * 4
    assert len(set(gradients)) == 3
    assert len(set(selection)) == 1
    assert not set(selection) & set(gradients)
    masks = [model.encoder.encode(images, seed=seed, image_ids=ids).index for seed in sorted(set(gradients))]
    assert not any(torch.equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize("model", [small_defense, Noisy], ids=["defense", "draws from torch's generator"])
def test_a_seed_repeats_an_attack_and_torchs_generator_keeps_its_state(model: type[nn.Module]) -> None:
    attacked, (images, labels, ids) = model().eval(), random_images()
    budget = PGDSettings(steps=3, restarts=2, realizations=2)
    state = torch.random.get_rng_state()
    first, second, other = (
        pgd(attacked, images, labels, budget, seed=seed, image_ids=ids).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_on_an_image_does_not_depend_on_its_batch(norm: str) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = PGDSettings(0.1, 0.02, steps=3, restarts=2, realizations=3, norm=norm)
    together = pgd(model, images, labels, budget, seed=0, image_ids=ids).images
    alone = pgd(model, images[2:3], labels[2:3], budget, seed=0, image_ids=ids[2:3]).images
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-6)


def test_progress_and_counts_include_every_pass() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    steps: list[int] = []
    budget = PGDSettings(steps=3, restarts=2, realizations=4)
    result = pgd(model, images, labels, budget, seed=0, image_ids=ids, progress=steps.append)
    assert steps == [2 * 4 * len(images)] * 3
    assert sum(steps) == result.gradients * len(images) == budget.gradients * len(images)
    assert result.forwards == budget.forwards == 2 * 4


def test_unusable_gradients_are_counted_over_steps_and_restarts() -> None:
    images, labels, ids = random_images()
    images[:, 0, 0, 0] = 0.5
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0, 1
    budget = PGDSettings(epsilon=0, steps=2, restarts=2, realizations=3)
    result = pgd(Silent().eval(), images, labels, budget, seed=0, image_ids=ids)
    assert (result.zero.tolist(), result.invalid.tolist()) == ([12, 0, 0, 0, 0, 0], [0, 12, 0, 0, 0, 0])


def test_the_restart_with_the_largest_margin_is_returned() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    single, several = (
        pgd(model, images, labels, PGDSettings(0.2, 0.05, 1, restarts, 1), seed=0, image_ids=ids).images
        for restarts in (1, 8)
    )
    margins = [mean_margin(model, perturbed, labels, None, 1, 0, ids) for perturbed in (single, several)]
    assert bool((margins[1] >= margins[0]).all())
    assert bool((margins[1] > margins[0]).any())


def test_the_judge_chooses_the_restart() -> None:
    """Attempts are crafted on another model; the judge's margin decides."""
    source, judge = Linear(1, 8, 10).eval(), Linear(1, 8, 10).eval()
    images, labels, ids = random_images()
    budget = PGDSettings(0.2, 0.05, 1, 8, 1)
    batches = {
        name: pgd(source, images, labels, budget, seed=0, image_ids=ids, judge=each).images
        for name, each in {"none": None, "source": source, "judge": judge}.items()
    }
    assert torch.equal(batches["none"], batches["source"])
    margins = {name: mean_margin(judge, batch, labels, None, 1, 0, ids) for name, batch in batches.items()}
    assert bool((margins["judge"] >= margins["none"]).all())
    assert bool((margins["judge"] > margins["none"]).any())


def test_a_judge_in_training_mode_is_refused() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    with pytest.raises(ValueError, match="judge is in training mode"):
        pgd(model, images, labels, PGDSettings(steps=1), seed=0, image_ids=ids, judge=Linear(1, 8, 10))


def test_the_number_of_draws_that_choose_is_a_setting() -> None:
    assert PGDSettings(restarts=3, realizations=1, selection=40).forwards == 120
    assert PGDSettings(restarts=3, realizations=4).forwards == 12


def test_perturbed_images_require_no_gradient() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    perturbed = pgd(model, images.requires_grad_(), labels, PGDSettings(steps=1), seed=0, image_ids=ids).images
    assert not perturbed.requires_grad
    assert images.grad is None


class Counted(TorchDispatchMode):
    """Counts operations outside the model, and the images that the model classifies."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.num_images = self.depth = 0
        model.register_forward_pre_hook(self.enter)
        model.register_forward_hook(self.leave)

    def enter(self, _model: nn.Module, arguments: tuple[Tensor]) -> None:
        self.num_images += len(arguments[0])
        self.depth += 1

    def leave(self, *_: object) -> None:
        self.depth -= 1

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if not self.depth:
            self.operations[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


def test_a_step_classifies_each_image_once_and_checks_nothing_again() -> None:
    """No step may read a number from a tensor, since that waits for a GPU."""
    images, labels, ids = random_images()
    counted = {}
    for steps in (1, 11):
        model = Linear(1, 8, 10).eval()
        with Counted(model) as counted[steps]:
            pgd(model, images, labels, PGDSettings(steps=steps, realizations=1), seed=0, image_ids=ids)
    assert [count.num_images for count in counted.values()] == [len(images), 11 * len(images)]
    more = counted[11].operations - counted[1].operations
    assert not more["_local_scalar_dense"]
    assert not more["aminmax"]
    assert more["amax"] == 10 * 2  # of the gradient, and of the other logits


def test_parameters_require_gradients_again_after_an_attack_that_failed() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    with pytest.raises(ValueError, match="hold class 10"):
        pgd(model, images, labels + 5, PGDSettings(steps=1), seed=0, image_ids=ids)
    assert all(parameter.requires_grad for parameter in model.parameters())
