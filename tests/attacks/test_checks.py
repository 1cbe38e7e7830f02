"""Arguments and settings that attacks refuse, and the errors that name them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import random_images, small_defense
from neuroae import Defense
from neuroae.attacks import (
    APGDSettings,
    PGDSettings,
    SquareSettings,
    apgd,
    eot_gradient,
    mean_probabilities,
    pgd,
    square,
)
from neuroae.utils.contexts import drawing_from


def gradient(model: Any, images: Any, labels: Any, **arguments: Any) -> object:
    return eot_gradient(model, images, labels, realizations=1, seed=0, **arguments)


def with_settings(attack: Callable[..., object], settings: object) -> Callable[..., object]:
    return lambda model, images, labels, **rest: attack(model, images, labels, settings, seed=0, **rest)


ATTACKS = {
    "eot_gradient": gradient,
    "pgd": with_settings(pgd, PGDSettings(steps=1, realizations=1)),
    "apgd": with_settings(apgd, APGDSettings(steps=1, realizations=1)),
    "square": with_settings(square, SquareSettings(queries=1, draws=1)),
}
with drawing_from(0):
    IMAGES, LABELS, IDS = random_images()
WITH_NAN = IMAGES.clone()
WITH_NAN[0, 0, 0, 0] = torch.nan
WRONG = {
    "images of bytes": ({"images": (IMAGES * 255).byte()}, TypeError, "images is torch.uint8.*divide by 255"),
    "images in double precision": ({"images": IMAGES.double()}, TypeError, "images is torch.float64"),
    "images that are no tensor": ({"images": IMAGES.numpy()}, TypeError, "images is a ndarray"),
    "images up to 255": ({"images": IMAGES * 255}, ValueError, r"images has values from .* expected in \[0, 1\]"),
    "images below 0": ({"images": IMAGES - 0.5}, ValueError, "images has values from -0.4"),
    "images with NaN": ({"images": WITH_NAN}, ValueError, "images has values from nan"),
    "one image": ({"images": IMAGES[0]}, ValueError, r"images has shape \(1, 8, 8\)"),
    "no images": ({"images": IMAGES[:0]}, ValueError, r"images has shape \(0, 1, 8, 8\)"),
    "labels too few": ({"labels": LABELS[:5]}, ValueError, r"labels has shape \(5,\), expected \(6,\)"),
    "labels in float": ({"labels": LABELS.float()}, TypeError, "labels is torch.float32"),
    "labels in a list": ({"labels": LABELS.tolist()}, TypeError, "labels is a list"),
    "labels below 0": ({"labels": LABELS - 1}, ValueError, "labels holds -1"),
    "labels beyond the classes": ({"labels": LABELS + 5}, ValueError, "labels or targets hold class 10.* below 10"),
    "ids in two dimensions": ({"image_ids": IDS[None]}, ValueError, r"image_ids has shape \(1, 6\)"),
    "ids too large": ({"image_ids": IDS + 2**32}, ValueError, "image_ids holds"),
    "ids in int32": ({"image_ids": IDS.int()}, TypeError, "image_ids is torch.int32"),
    "targets too many": ({"targets": LABELS.repeat(2)}, ValueError, r"targets has shape \(12,\)"),
    "targets beyond the classes": ({"targets": LABELS + 5}, ValueError, "labels or targets hold class 10"),
    "labels elsewhere": ({"labels": LABELS.to("meta")}, ValueError, "labels is on meta, expected cpu"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(("change", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused(
    attack: Callable[..., object], change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"images": IMAGES, "labels": LABELS, "image_ids": IDS} | change
    with pytest.raises(error, match=message):
        attack(small_defense(), **arguments)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_model_in_training_mode_is_refused(attack: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="model is in training mode"):
        attack(small_defense().train(), IMAGES, LABELS, image_ids=IDS)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_images_outside_the_box_by_rounding_are_accepted(attack: Callable[..., object]) -> None:
    attack(small_defense(), (IMAGES * 2).clamp(0, 1) + 1e-7, LABELS, image_ids=IDS)


class Chatty(nn.Module):
    """Returns a tuple of logits and a number."""

    def forward(self, images: Tensor) -> tuple[Tensor, int]:
        return images.flatten(1), 3


class ChattySeeded(Chatty):
    def forward(self, images: Tensor, seed: int = 0, image_ids: Tensor | None = None) -> tuple[Tensor, int]:
        return super().forward(images)


def chatty_defense() -> Defense:
    model = small_defense()
    return Defense(model.encoder, model.decoder, Chatty()).eval()


@pytest.mark.parametrize("model", [Chatty, ChattySeeded, chatty_defense])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_outputs_that_are_no_tensor_are_refused(attack: Callable[..., object], model: Callable[[], nn.Module]) -> None:
    with pytest.raises(TypeError, match="model answers with a tuple, expected a tensor of logits"):
        attack(model().eval(), IMAGES, LABELS, image_ids=IDS)
    with pytest.raises(TypeError, match="model answers with a tuple"):
        mean_probabilities(model().eval(), IMAGES, 2, 0, IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"realizations": 0}, "realizations is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"average": "median"}, "average is 'median'"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
    ],
)
def test_gradients_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"realizations": 1, "seed": 0, "image_ids": IDS} | change
    with pytest.raises(ValueError, match=message):
        eot_gradient(small_defense(), IMAGES, LABELS, **arguments)


GRADIENT_SETTINGS = [
    ({"epsilon": 8}, ValueError, r"epsilon is 8, expected in \[0, 1\]"),
    ({"epsilon": -0.1}, ValueError, "epsilon is -0.1"),
    ({"epsilon": float("nan")}, ValueError, "epsilon is nan"),
    ({"epsilon": "8/255"}, TypeError, "epsilon is a str"),
    ({"epsilon": -1, "norm": "l2"}, ValueError, "epsilon is -1, expected at least 0"),
    ({"epsilon": float("inf"), "norm": "l2"}, ValueError, "epsilon is inf"),
    ({"steps": 0}, ValueError, "steps is 0"),
    ({"steps": 2.5}, TypeError, "steps is a float"),
    ({"restarts": 0}, ValueError, "restarts is 0"),
    ({"realizations": 0}, ValueError, "realizations is 0"),
    ({"chunk": 0}, ValueError, "chunk is 0"),
    ({"average": "median"}, ValueError, "average is 'median'"),
    ({"loss": "hinge"}, ValueError, "loss is 'hinge'"),
    ({"norm": "l1"}, ValueError, "norm is 'l1'"),
]
OTHER_SETTINGS = [
    (PGDSettings, {"step_size": 0}, ValueError, "step_size is 0"),
    (PGDSettings, {"step_size": float("inf")}, ValueError, "step_size is inf"),
    (APGDSettings, {"rho": 1.5}, ValueError, "rho is 1.5"),
    (SquareSettings, {"epsilon": 8}, ValueError, "epsilon is 8"),
    (SquareSettings, {"queries": 0}, ValueError, "queries is 0"),
    (SquareSettings, {"draws": 0}, ValueError, "draws is 0"),
    (SquareSettings, {"p_init": 0}, ValueError, "p_init is 0"),
]


@pytest.mark.parametrize(
    ("settings", "change", "error", "message"),
    [(kind, *case) for kind in (PGDSettings, APGDSettings) for case in GRADIENT_SETTINGS] + OTHER_SETTINGS,
)
def test_settings_out_of_range_are_refused(
    settings: type, change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        settings(**change)


@pytest.mark.parametrize(
    ("attack", "kind", "other"),
    [(pgd, "PGDSettings", APGDSettings()), (apgd, "APGDSettings", PGDSettings()), (square, "SquareSettings", None)],
    ids=["pgd", "apgd", "square"],
)
def test_settings_of_another_attack_are_refused(attack: Callable[..., object], kind: str, other: object) -> None:
    with pytest.raises(TypeError, match=rf"settings is an? \w+, expected {kind}"):
        attack(small_defense(), IMAGES, LABELS, other, seed=0, image_ids=IDS)


@pytest.mark.parametrize(
    ("attack", "budget"),
    [(pgd, PGDSettings()), (apgd, APGDSettings()), (square, SquareSettings())],
    ids=["pgd", "apgd", "square"],
)
def test_a_seed_that_is_not_an_integer_is_refused(attack: Callable[..., object], budget: object) -> None:
    with pytest.raises(TypeError, match="seed is a str, expected an int"):
        attack(small_defense(), IMAGES, LABELS, budget, seed="7", image_ids=IDS)


def test_l2_budgets_may_be_above_one() -> None:
    assert PGDSettings(epsilon=3.0, norm="l2").epsilon == 3


def test_defaults_are_the_papers() -> None:
    budget = PGDSettings()
    assert (budget.epsilon, budget.step_size, budget.steps) == (8 / 255, 1 / 225, 20)
    assert (budget.restarts, budget.realizations, budget.average, budget.norm) == (1, 40, "normalized", "linf")
    assert (budget.loss, budget.random_start) == ("cross-entropy", False)
    assert (budget.gradients, budget.forwards) == (800, 0)
