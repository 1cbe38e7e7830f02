"""Each task's loss, compared with the formula written out, for the masks of a seed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models import random_images, small_defense
from neuroae import Defense
from neuroae.training.methods import Classification, FrozenAutoencoder, Regression, Supervised

SEED = 5

# Each with the logits that it judges.
CLASSIFYING: dict[str, tuple[Callable[[Defense], nn.Module], Callable[[Defense, Tensor, Tensor], Tensor]]] = {
    "classifier alone": (
        lambda model: Classification(model.classifier),
        lambda model, images, _: model.classifier(images),
    ),
    "whole defense": (Supervised, lambda model, images, ids: model(images, seed=SEED, image_ids=ids)),
    "behind a frozen autoencoder": (
        FrozenAutoencoder,
        lambda model, images, ids: model.classifier(model.decoder(model.encoder.encode(images, 1, SEED, ids))),
    ),
}


@pytest.mark.parametrize(("task", "answer"), CLASSIFYING.values(), ids=CLASSIFYING.keys())
def test_classifying_is_judged_by_the_mean_negative_logarithm_of_the_labels_probabilities(
    task: Callable[[Defense], nn.Module], answer: Callable[[Defense, Tensor, Tensor], Tensor]
) -> None:
    model = small_defense()
    images, labels, ids = random_images()
    loss, logits = task(model)(images, labels, ids, SEED)
    expected = answer(model, images, ids).detach()
    assert torch.equal(logits, expected)
    assert not logits.requires_grad
    probabilities = expected.double().softmax(1)[torch.arange(len(labels)), labels]
    assert loss.item() == pytest.approx(-probabilities.log().mean().item(), rel=1e-5)


def test_regression_is_judged_by_the_mean_squared_difference_to_the_image() -> None:
    model = small_defense()
    images, labels, ids = random_images()
    loss, logits = Regression(model)(images, labels, ids, SEED)
    decoded = model.decoder(model.encoder.encode(images, 1, SEED, ids)).detach().double()
    assert loss.item() == pytest.approx((decoded - images).square().mean().item(), rel=1e-5)
    assert logits is None


LEARNING: dict[str, tuple[Callable[[Defense], nn.Module], set[str]]] = {
    "supervised": (Supervised, {"decoder", "classifier"}),
    "regression": (Regression, {"decoder"}),
    "frozen autoencoder": (FrozenAutoencoder, {"classifier"}),
}


@pytest.mark.parametrize(("task", "learning"), LEARNING.values(), ids=LEARNING.keys())
def test_gradients_reach_what_the_task_is_to_teach_alone(
    task: Callable[[Defense], nn.Module], learning: set[str]
) -> None:
    model = small_defense()
    task(model)(*random_images(), SEED).loss.backward()
    reached = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == learning
