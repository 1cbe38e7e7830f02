"""Attacks of foolbox and torchattacks run on our models: they stay in the ball and follow our surrogates."""

from collections.abc import Callable

import foolbox
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attacked_models import distance
from digits_defense import BUDGET, digits, digits_defense
from models import random_images, small_defense
from neuroae.attacks import PGDSettings, mean_probabilities, pgd
from neuroae.attacks.losses import cross_entropy
from neuroae.evaluation.checks.outcomes import Pairs
from neuroae.nn.variants import FixedMasks
from results_data import small_cifar10_defense

EPSILON = {"linf": 0.1, "l2": 0.6}
STEP, STEPS = 0.03, 5
ROUNDING = 1e-6

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def foolbox_attack(attack: foolbox.attacks.base.FixedEpsilonAttack, norm: str = "linf") -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        _, perturbed, _ = attack(wrapped, images, labels, epsilons=EPSILON[norm])
        return perturbed

    return run


def torchattacks_attack(name: str, **settings: object) -> Attack:
    return lambda model, images, labels: getattr(torchattacks, name)(model, **settings)(images, labels).detach()


STEPPED = {"steps": STEPS, "random_start": False}
PLAIN_PGD = {
    "foolbox linf": ("linf", foolbox_attack(foolbox.attacks.LinfPGD(abs_stepsize=STEP, **STEPPED))),
    "foolbox l2": ("l2", foolbox_attack(foolbox.attacks.L2PGD(abs_stepsize=STEP, **STEPPED), "l2")),
    "torchattacks linf": ("linf", torchattacks_attack("PGD", eps=EPSILON["linf"], alpha=STEP, **STEPPED)),
    "torchattacks l2": ("l2", torchattacks_attack("PGDL2", eps=EPSILON["l2"], alpha=STEP, **STEPPED)),
}
SINGLE_STEP = {
    "foolbox": foolbox_attack(foolbox.attacks.LinfFastGradientAttack()),
    "torchattacks": torchattacks_attack("FGSM", eps=EPSILON["linf"]),
}
MORE = {
    "foolbox random start": ("linf", foolbox_attack(foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS))),
    "torchattacks EOT": ("linf", torchattacks_attack("EOTPGD", eps=EPSILON["linf"], steps=STEPS, eot_iter=3)),
    "torchattacks APGD": ("linf", torchattacks_attack("APGD", eps=EPSILON["linf"], steps=STEPS, eot_iter=3)),
    "torchattacks APGD l2": ("l2", torchattacks_attack("APGD", norm="L2", eps=EPSILON["l2"], steps=STEPS)),
    "torchattacks square": ("linf", torchattacks_attack("Square", eps=EPSILON["linf"], n_queries=20)),
}
LIBRARIES = pytest.mark.parametrize("attack", SINGLE_STEP.values(), ids=SINGLE_STEP)
SURROGATES = pytest.mark.parametrize("surrogate", ["identity", "smooth", "autoencoder-identity"])


def gradient(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    return torch.autograd.grad(cross_entropy(logits, labels).sum(), images)[0]


@pytest.mark.parametrize("wrap", [lambda model: model, FixedMasks], ids=["defense", "fixed masks"])
@pytest.mark.parametrize(("norm", "attack"), (PLAIN_PGD | MORE).values(), ids=PLAIN_PGD | MORE)
def test_attacks_run_on_our_models_and_stay_in_the_ball(
    wrap: Callable[[nn.Module], nn.Module], norm: str, attack: Attack
) -> None:
    model, (images, _, _) = wrap(small_defense()).eval(), random_images()
    labels = model(images).argmax(-1)
    perturbed = attack(model, images, labels)
    assert perturbed.dtype == torch.float32
    assert distance(perturbed, images, norm).max() <= EPSILON[norm] + ROUNDING
    assert 0 <= float(perturbed.min()) <= float(perturbed.max()) <= 1
    assert not torch.equal(perturbed, images)


@pytest.mark.parametrize("name", ["foolbox l2", "torchattacks linf", "torchattacks EOT"])
def test_attacks_run_on_the_papers_decoder_and_classifier(name: str) -> None:
    """They have the sparse and the Winograd layer, and the ResNet-32."""
    norm, attack = (PLAIN_PGD | MORE)[name]
    model, (images, _, _) = small_cifar10_defense(), random_images(2, channels=3, size=32)
    perturbed = attack(model, images, model(images).argmax(-1))
    assert distance(perturbed, images, norm).max() <= EPSILON[norm] + ROUNDING
    assert not torch.equal(perturbed, images)


@SURROGATES
@LIBRARIES
def test_a_step_follows_our_surrogate(attack: Attack, surrogate: str) -> None:
    model, (images, labels, ids) = small_defense().with_surrogate(surrogate), random_images()
    perturbed = attack(FixedMasks(model, 5, ids).eval(), images, labels)
    leaf = images.clone().requires_grad_()
    rise = gradient(model(leaf, seed=5, image_ids=ids), labels, leaf)
    assert (rise != 0).float().mean() > 0.5
    torch.testing.assert_close(perturbed, (images + EPSILON["linf"] * rise.sign()).clamp(0, 1), rtol=0, atol=1e-6)


@LIBRARIES
def test_surrogates_lead_to_different_images(attack: Attack) -> None:
    model, (images, labels, ids) = small_defense(dropout_p=0.1), random_images()
    batches = [
        attack(FixedMasks(model.with_surrogate(surrogate), 5, ids).eval(), images, labels)
        for surrogate in ("identity", "smooth", "autoencoder-identity")
    ]
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


@SURROGATES
@LIBRARIES
def test_torchs_generator_governs_the_draws_in_attacks_of_a_library(attack: Attack, surrogate: str) -> None:
    model, (images, labels, _) = small_defense().with_surrogate(surrogate), random_images()
    torch.manual_seed(11)
    perturbed = attack(model, images, labels)
    leaf = images.clone().requires_grad_()
    torch.manual_seed(11)
    rise = gradient(model(leaf), labels, leaf)
    torch.testing.assert_close(perturbed, (images + EPSILON["linf"] * rise.sign()).clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "attack"), PLAIN_PGD.values(), ids=PLAIN_PGD)
def test_our_pgd_is_theirs_on_fixed_masks(norm: str, attack: Attack) -> None:
    """Up to rounding, which may change the sign of a gradient near zero."""
    model, (images, labels, ids) = small_defense(), random_images()
    budget = PGDSettings(EPSILON[norm], STEP, STEPS, realizations=1, norm=norm)
    ours = pgd(FixedMasks(model, 5).eval(), images, labels, budget, seed=0, image_ids=ids * 0).images
    theirs = attack(FixedMasks(model, 5).eval(), images, labels)
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.99
    assert distance(ours, images, norm).min() > STEP


ON_DIGITS = {
    "foolbox": lambda model, images, labels: foolbox.attacks.LinfPGD(abs_stepsize=BUDGET / 8, steps=20)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=BUDGET
    )[1],
    "torchattacks": torchattacks_attack("PGD", eps=BUDGET, alpha=BUDGET / 8, steps=20),
}


@pytest.mark.parametrize("w_nfga", ["identity", "smooth"])
@pytest.mark.parametrize("attack", ON_DIGITS.values(), ids=ON_DIGITS)
def test_the_selection_leaves_significantly_less_than_w_nfga(attack: Attack, w_nfga: str) -> None:
    """On the same images, with votes of ten draws that no attack used."""
    model, (images, labels) = digits_defense(), digits("test", 150)
    ids = torch.arange(len(images))

    def correct(surrogate: str) -> dict[int, bool]:
        torch.manual_seed(1)
        perturbed = attack(model.with_surrogate(surrogate), images, labels)
        votes = mean_probabilities(model, perturbed, 10, 5, ids).argmax(-1)
        return dict(enumerate((votes == labels).tolist()))

    pairs = Pairs.of(correct("selection"), correct(w_nfga))
    assert pairs is not None
    assert pairs.first_accuracy < pairs.second_accuracy
    assert pairs.p < 0.01
