"""Attacks on unusual models: which work, and which are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacked_models import Fixed, Noisy
from models import Linear, random_images, small_defense
from neuroae import Defense, SparseCode, SparseEncoder, derive_seed, resnet32
from neuroae.attacks import (
    APGDSettings,
    PGDSettings,
    SquareSettings,
    apgd,
    drawn_probabilities,
    eot_gradient,
    mean_margin,
    pgd,
    square,
)
from neuroae.evaluation import Attack
from neuroae.evaluation.scoring import Scoring, answers
from neuroae.nn.classifiers import ResNet32
from neuroae.nn.variants import Ensemble, FixedMasks, MeanField
from neuroae.utils.modules import takes_seeds

ATTACKS = {
    "pgd": (pgd, PGDSettings(epsilon=0.1, step_size=0.05, steps=3, realizations=2)),
    "apgd": (apgd, APGDSettings(epsilon=0.1, steps=3, realizations=2)),
    "square": (square, SquareSettings(epsilon=0.1, queries=3, draws=2)),
}
attacks = pytest.mark.parametrize("name", ATTACKS)


def attacked(name: str, model: nn.Module) -> Tensor:
    method, settings = ATTACKS[name]
    images, labels, ids = random_images()
    return method(model, images, labels, settings, seed=3, image_ids=ids).images  # type: ignore[operator]


def noisy_classifier() -> Defense:
    """Returns a defense whose classifier draws too, from torch's generator."""
    model = small_defense()
    model.classifier = Noisy()
    return model.eval()


@pytest.fixture(autouse=True)
def same_images() -> None:
    torch.manual_seed(0)


@attacks
@pytest.mark.parametrize("members", [0, 2], ids=["alone", "ensemble"])
def test_a_classifier_that_draws_is_seeded_too(name: str, members: int) -> None:
    model = Ensemble(noisy_classifier(), members) if members else noisy_classifier()
    result = []
    for noise in range(2):
        torch.manual_seed(7)
        images, labels, ids = random_images()
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        method, settings = ATTACKS[name]
        result.append(method(model, images, labels, settings, seed=3, image_ids=ids).images)  # type: ignore[operator]
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(*result)


def test_a_classifier_has_fresh_draws_in_each_realization() -> None:
    model, (images, labels, ids) = noisy_classifier(), random_images()
    answers(model, images, ids, Scoring(draws=12))
    eot_gradient(model, images, labels, realizations=12, seed=0, image_ids=ids, chunk=1)
    drawn = model.classifier.drawn
    assert len(set(drawn)) == len(drawn) > 12


def test_with_fixed_masks_a_classifier_draws_the_same_in_every_call() -> None:
    images, _, ids = random_images()
    model = FixedMasks(noisy_classifier(), 9, ids)
    assert torch.equal(model(images), model(images))
    result = answers(model, images, ids, Scoring(draws=3))
    assert result.draws.eq(result.draws[0]).all()


def with_batch_normalization() -> Defense:
    model = small_defense()
    model.classifier = nn.Sequential(nn.BatchNorm2d(1), Linear(1, 8, 10))
    return model.eval()


@attacks
@pytest.mark.parametrize(
    "view",
    [lambda model: model.with_surrogate("identity"), Ensemble, MeanField, FixedMasks],
    ids=["surrogate", "ensemble", "mean field", "fixed masks"],
)
def test_batch_normalization_in_training_mode_is_refused(name: str, view: Callable[[Defense], nn.Module]) -> None:
    """The view shares parts with a model that goes back to training mode."""
    model = with_batch_normalization()
    attacked_model = view(model)
    model.train()
    with pytest.raises(ValueError, match=r"model\.(model\.)?classifier\.0 is in training mode, expected evaluation"):
        attacked(name, attacked_model)
    assert model.classifier[0].num_batches_tracked == 0


@attacks
def test_dropout_may_stay_on(name: str) -> None:
    model = small_defense()
    model.classifier = nn.Sequential(nn.Dropout(0.3), Linear(1, 8, 10))
    model.eval().classifier[0].train()
    assert not torch.equal(attacked(name, model), random_images()[0])


@pytest.mark.parametrize("variant", ["ensemble", "mean-field", None])
def test_an_attack_leaves_modes_as_they_are(variant: str | None) -> None:
    model = small_defense()
    model.classifier = nn.Sequential(nn.Dropout(0.3), Linear(1, 8, 10))
    model.eval().classifier[0].train()
    attack = Attack("", model, PGDSettings(), variant=variant)  # type: ignore[arg-type]
    scoring = Scoring(1, deterministic=variant is None)
    assert not attack.crafting_model(scoring, torch.arange(2)).training
    assert model.classifier[0].training


class Flipped(Defense):
    """Classifies the negative of every image."""

    def forward(self, images: Tensor, *args: object, **kwargs: object) -> Tensor:
        return super().forward(1 - images, *args, **kwargs)  # type: ignore[arg-type]


class FlippedSeeded(Defense):
    def forward(self, images, realizations=None, seed=None, image_ids=None):  # type: ignore[no-untyped-def]
        return super().forward(1 - images, realizations, seed, image_ids)


def flipped(method: str) -> Defense:
    model = small_defense()
    match method:
        case "hook":
            model.register_forward_pre_hook(lambda _, inputs: (1 - inputs[0],))
        case "assigned":
            forward = model.forward
            model.forward = lambda images, seed, image_ids: forward(  # type: ignore[method-assign,assignment]
                1 - images, None, seed, image_ids
            )
        case _:
            kind = {"subclass": Flipped, "seeded subclass": FlippedSeeded}[method]
            model = kind(model.encoder, model.decoder, model.classifier).eval()
    return model


@pytest.mark.parametrize("method", ["hook", "assigned", "subclass", "seeded subclass"])
def test_an_altered_forward_is_attacked_and_scored(method: str) -> None:
    model, (images, _, ids) = flipped(method), random_images()
    plain = Defense(model.encoder, model.decoder, model.classifier).eval()
    many = 4000
    flipped_mean, expected, other = (
        torch.stack(list(drawn_probabilities(each, inputs, many, 0, ids))).mean(0)
        for each, inputs in ((model, images), (plain, 1 - images), (plain, images))
    )
    # Equal up to the noise of different draws.
    assert (flipped_mean - expected).abs().max() < 0.2 * (other - expected).abs().max()
    with pytest.raises(TypeError, match="hooks or a forward of its own"):
        MeanField(model)


def test_the_gradient_of_an_assigned_forward_cannot_be_chosen() -> None:
    """The assigned function is bound to the first model."""
    with pytest.raises(TypeError, match="forward was assigned to the model itself"):
        flipped("assigned").with_surrogate("identity")


@pytest.mark.parametrize("kind", ["fgsm", "r_fgsm"])
def test_a_single_step_may_have_a_budget_of_zero(kind: str) -> None:
    images, labels, ids = random_images()
    settings = getattr(PGDSettings, kind)(0.0, realizations=1)
    assert torch.equal(pgd(small_defense(), images, labels, settings, seed=0, image_ids=ids).images, images)


def test_a_subclass_is_not_saved_as_its_base_class(tmp_path: object) -> None:
    model = flipped("subclass")
    with pytest.raises(TypeError, match="model is a Flipped of SparseEncoder, SmallDecoder, Linear, expected"):
        model.save_pretrained(str(tmp_path))

    class Wider(ResNet32):
        pass

    model = resnet32()
    model.__class__ = Wider
    with pytest.raises(TypeError, match="model is a Wider, expected a ResNet32"):
        model.save_pretrained(str(tmp_path))


class Thermometer(nn.Module):
    """Compares pixels with a threshold, which passes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear((images > 0.5).float())


class Constant(nn.Module):
    """Has a graph that does not contain the image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.randn(10, requires_grad=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), 10)


@pytest.mark.parametrize("model", [Thermometer, Constant])
def test_a_model_without_a_gradient_has_a_gradient_of_zero(model: Callable[[], nn.Module]) -> None:
    images, labels, ids = random_images()
    estimate = eot_gradient(model().eval(), images, labels, realizations=3, seed=0, image_ids=ids)
    assert estimate.gradient.eq(0).all()
    assert estimate.zero.eq(3).all()
    assert estimate.invalid.eq(0).all()
    for name in ATTACKS:
        attacked(name, model().eval())


@attacks
def test_attacks_are_the_same_under_another_default_dtype(name: str, default_dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float32)
    model, (images, labels, ids) = small_defense(), random_images()
    method, settings = ATTACKS[name]
    expected = method(model, images, labels, settings, seed=3, image_ids=ids)  # type: ignore[operator]
    torch.set_default_dtype(default_dtype)
    result = method(model, images, labels, settings, seed=3, image_ids=ids)  # type: ignore[operator]
    assert result.images.dtype == torch.float32
    assert torch.equal(result.images, expected.images)


@attacks
def test_attacks_run_under_no_grad(name: str) -> None:
    expected = attacked(name, small_defense())
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.equal(attacked(name, small_defense()), expected)


def test_iterating_over_draws_leaves_gradients_enabled() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    drawn = drawn_probabilities(model, images, 30, 0, ids)
    assert not next(drawn).requires_grad
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="labels or targets hold class 55") as caught:
        mean_margin(model, images, labels + 50 * (labels == 5), None, 3, 0, ids)
    assert caught.tb is not None
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_an_attack_on_a_traced_model_is_that_on_the_model() -> None:
    model = Linear(1, 8, 10).eval()
    traced = torch.jit.trace(model, torch.rand(6, 1, 8, 8))
    images, labels, ids = random_images()
    settings = ATTACKS["pgd"][1]
    ours, theirs = (pgd(each, images, labels, settings, seed=0, image_ids=ids).images for each in (model, traced))
    torch.testing.assert_close(theirs, ours)


class Extremes(nn.Module):
    """Has margins of plus and of minus infinity, in alternating calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = Fixed(torch.zeros(1, 3))(images)
        logits[:, 0 if self.calls % 2 else 1] = -torch.inf
        if self.calls % 2 == 0:
            logits[:, 2] = -torch.inf
        return logits


def test_infinite_losses_of_both_signs_have_no_mean() -> None:
    images, _, ids = random_images()
    labels = torch.zeros(6, dtype=torch.int64)
    estimate = eot_gradient(Extremes().eval(), images, labels, realizations=2, seed=0, image_ids=ids, loss="margin")
    assert estimate.loss.eq(-torch.inf).all()


@pytest.mark.parametrize("model", [Linear(1, 8, 10), small_defense()], ids=["classifier", "defense"])
def test_attacks_are_refused_in_inference_mode(model: nn.Module) -> None:
    """There is no gradient, so the images would not change."""
    images, labels, ids = random_images()
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"torch\.inference_mode rules out"):
        pgd(model.eval(), images, labels, PGDSettings(steps=1, realizations=1), seed=0, image_ids=ids)


class Changed(SparseEncoder):
    """Encodes brighter images."""

    def encode(self, images: Tensor, *arguments: object, **more: object) -> SparseCode:
        return super().encode((images * 1.5).clamp(max=1), *arguments, **more)  # type: ignore[arg-type]


def test_a_defense_with_another_encoder_is_called_as_a_whole() -> None:
    model, (images, _, ids) = small_defense(), random_images()
    model.encoder = Changed(model.encoder.atoms, top_t=8, dropout_p=0.5, epsilon=0.02)
    actual = drawn_probabilities(model, images, draws=1, seed=5, image_ids=ids)
    expected = model(images, seed=derive_seed(5, "realization", 0), image_ids=ids).softmax(-1)
    torch.testing.assert_close(next(iter(actual)), expected)


def test_wrappers_pass_seeds_on() -> None:
    model = small_defense()
    assert takes_seeds(nn.DataParallel(model))
    assert takes_seeds(torch.compile(model))
    assert not takes_seeds(torch.compile(Linear(1, 8, 10)))
