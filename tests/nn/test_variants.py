"""Modules around a random model against direct computation, gradients included."""

import math

import pytest
import torch
from torch import Tensor, nn

from attacked_models import Noisy
from dictionaries import unit_atoms
from models import Linear, random_images, small_defense
from neuroae import Defense, SparseCode, SparseEncoder
from neuroae.attacks import PGDSettings, eot_gradient, pgd
from neuroae.attacks.losses import cross_entropy
from neuroae.nn.variants import Ensemble, FixedMasks, MeanField

SURROGATES = pytest.mark.parametrize("surrogate", ["identity", "smooth", "autoencoder-identity"])


class LinearDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(20, 1, 4, 2)

    def forward(self, code: SparseCode) -> Tensor:
        return self.layer(code.to_dense())


def linear_defense(**settings: object) -> Defense:
    """Returns a defense with logits linear in the code, whose mean over dropout is known."""
    arguments = {"stride": 2, "top_t": 8, "dropout_p": 0.7, "epsilon": 0.02} | settings
    return Defense(SparseEncoder(unit_atoms(20, 1, 4), **arguments), LinearDecoder(), Linear(1, 8, 10)).eval()  # type: ignore[arg-type]


def gradient(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    return torch.autograd.grad(cross_entropy(logits, labels).sum(), images)[0]


@pytest.mark.parametrize("members", [1, 5])
def test_ensemble_is_the_log_of_the_mean_softmax(members: int) -> None:
    model, (images, _, ids) = small_defense(), random_images()
    result = Ensemble(model, members)(images, seed=3, image_ids=ids)
    torch.testing.assert_close(result.exp(), model.predict_proba(images, members, 3, ids))


@SURROGATES
def test_gradient_of_the_ensemble_goes_through_the_mean(surrogate: str) -> None:
    model, (images, labels, ids) = small_defense().with_surrogate(surrogate), random_images()
    images.requires_grad_()
    actual = gradient(Ensemble(model, 4)(images, seed=3, image_ids=ids), labels, images)
    selection = model.encoder.select(images)
    probabilities = torch.stack([model.realize(selection, 3, ids, one, 1).softmax(-1) for one in range(4)]).mean(0)
    (expected,) = torch.autograd.grad(-probabilities.gather(1, labels[:, None]).log().sum(), images)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)
    members = [gradient(model.realize(selection, 3, ids, one, 1), labels, images) for one in range(4)]
    assert not torch.allclose(actual, torch.stack(members).mean(0), rtol=1e-2)


def test_realizations_of_an_ensemble_are_ensembles_of_different_draws() -> None:
    model, (images, _, ids) = small_defense(), random_images()
    result = Ensemble(model, 3)(images, realizations=2, seed=3, image_ids=ids)
    each = model(images, realizations=6, seed=3, image_ids=ids).softmax(-1)
    torch.testing.assert_close(result.exp(), torch.stack([each[:3].mean(0), each[3:].mean(0)]))


def test_attacks_treat_an_ensemble_as_a_random_model() -> None:
    """Its realizations draw by seed and image id."""
    model, (images, labels, ids) = Ensemble(small_defense(), 2).eval(), random_images()
    arguments = {"realizations": 3, "seed": 0}
    gradient = eot_gradient(model, images, labels, image_ids=ids, **arguments).gradient
    alone = eot_gradient(model, images[4:], labels[4:], image_ids=ids[4:], **arguments).gradient
    torch.testing.assert_close(alone, gradient[4:])
    single = eot_gradient(model, images, labels, image_ids=ids, seed=0, realizations=1).gradient
    assert not torch.allclose(gradient, single, rtol=1e-2)


@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "plain"])
def test_mean_field_is_the_mean_over_dropout_of_a_model_that_is_linear_in_the_code(quantize: bool) -> None:
    """Within five standard errors of 4,000 draws."""
    model, (images, _, ids) = linear_defense(quantize=quantize), random_images(2)
    with torch.no_grad():
        draws = model(images, realizations=4000, seed=1, image_ids=ids)
        result = MeanField(model)(images)
    errors = draws.std(0) / math.sqrt(4000)
    assert (errors > 0).all()
    assert ((result - draws.mean(0)).abs() < 5 * errors).all()


@SURROGATES
def test_gradient_of_the_mean_field_is_the_mean_gradient(surrogate: str) -> None:
    model, (images, _, ids) = linear_defense().with_surrogate(surrogate), random_images(2)
    images.requires_grad_()
    weights = torch.randn(10)
    (result,) = torch.autograd.grad((MeanField(model)(images) @ weights).sum(), images)
    receiver = images.detach().repeat(2000, 1, 1, 1).requires_grad_()
    logits = model.realize(model.encoder.select(images.detach()), 1, ids, 0, 2000, receiver)
    (each,) = torch.autograd.grad((logits @ weights).sum(), receiver)
    each = each.unflatten(0, (2000, 2))
    errors = each.std(0) / math.sqrt(2000)
    assert ((result - each.mean(0)).abs() <= 5 * errors + 1e-5).all()


@SURROGATES
def test_without_dropout_the_mean_field_is_the_model(surrogate: str) -> None:
    model, (images, labels, _) = small_defense(dropout_p=0.0).with_surrogate(surrogate), random_images()
    images.requires_grad_()
    ours, theirs = MeanField(model)(images), model(images)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, labels, images), gradient(theirs, labels, images))


def test_mean_field_does_not_change_the_defense() -> None:
    model = small_defense()
    field = MeanField(model)
    assert model.encoder.dropout_p == 0.5
    assert field.encoder.atoms is model.encoder.atoms
    assert len(list(field.parameters())) == len(list(model.parameters()))


def test_fixed_masks_follow_from_their_seed_and_ids() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    fixed = FixedMasks(model, 9, ids)
    images.requires_grad_()
    expected = model(images, seed=9, image_ids=ids)
    assert torch.equal(fixed(images), expected)
    torch.testing.assert_close(gradient(fixed(images), labels, images), gradient(expected, labels, images))
    assert not torch.equal(FixedMasks(model, 8, ids)(images), expected)


def test_fixed_masks_without_ids_do_not_depend_on_the_place_in_the_batch() -> None:
    fixed, (images, _, _) = FixedMasks(small_defense()), random_images()
    assert torch.equal(fixed(images.flip(0)), fixed(images).flip(0))
    assert torch.equal(fixed(images[2:4]), fixed(images)[2:4])


def test_attacks_pass_ids_to_fixed_masks_without_fresh_draws() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    estimates = [
        eot_gradient(FixedMasks(model, 9).eval(), images, labels, realizations=1, seed=seed, image_ids=ids)
        for seed in (0, 1)
    ]
    leaf = images.clone().requires_grad_()
    expected = gradient(model(leaf, seed=9, image_ids=ids), labels, leaf)
    expected = expected / expected.flatten(1).norm(dim=1)[:, None, None, None]
    for estimate in estimates:
        torch.testing.assert_close(estimate.gradient, expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_on_fixed_masks_run_as_one_batch(norm: str) -> None:
    model, (images, labels, ids) = FixedMasks(small_defense(), 9).eval(), random_images()
    budget = PGDSettings(0.1, 0.05, 2, 3, 1, norm=norm)
    perturbed = pgd(model, images, labels, budget, seed=0, image_ids=ids).images
    alone = pgd(model, images[3:4], labels[3:4], budget, seed=0, image_ids=ids[3:4]).images
    torch.testing.assert_close(alone, perturbed[3:4], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Ensemble(small_defense(), 0), ValueError, "members is 0"),
        (lambda: Ensemble(Linear(1, 8, 10)), TypeError, "model is a Linear, expected a Defense"),
        (lambda: MeanField(Linear(1, 8, 10)), TypeError, "model is a Linear, expected a Defense"),
        (lambda: FixedMasks(Noisy()), TypeError, "model is a Noisy, expected one whose forward takes seed"),
    ],
    ids=["no members", "ensemble of one function", "mean field of one function", "masks of another source"],
)
def test_models_that_do_not_fit_are_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
