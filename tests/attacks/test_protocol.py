"""A model that is not ours implements the protocol, and has the same gradient as in its plain form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models import random_images
from neuroae import derive_seed
from neuroae.attacks import Average, PGDSettings, SquareSettings, eot_gradient, mean_margin, pgd, square
from neuroae.attacks.bpda import LogProbabilities
from neuroae.attacks.eot import AVERAGES
from neuroae.attacks.protocol import NormalizeGradients, Realize, realizations_at_once, realizer


class PlainNoise(nn.Module):
    """Projects an image, adds noise to the features by seed and image id, and classifies what is left.

    Attributes:
        num_projections: The number of times that a batch was projected.
    """

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(64, 24)
        self.classifier = nn.Sequential(nn.Tanh(), nn.Linear(24, 10))
        self.num_projections = 0

    def forward(self, images: Tensor, seed: int, image_ids: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.project(images) + self.noise(seed, image_ids))
        return logits

    def project(self, images: Tensor) -> Tensor:
        self.num_projections += 1
        features: Tensor = self.projection(images.flatten(1))
        return features

    def noise(self, seed: int, image_ids: Tensor) -> Tensor:
        generators = (torch.Generator().manual_seed(derive_seed(seed, "noise", int(number))) for number in image_ids)
        return torch.stack([torch.randn(24, generator=generator) for generator in generators])


class SharedNoise(PlainNoise):
    """The same model, which projects a batch once for all of its realizations."""

    def rows_at_once(self) -> int:
        return 18

    def realizer(self, images: Tensor, seed: int, image_ids: Tensor) -> Realize:
        features = self.project(images).detach()

        def realize(start: int, count: int, receiver: Tensor) -> Tensor:
            # Realization r has the seed that attacks give to a model that they call once a realization.
            seeds = [derive_seed(seed, "realization", start + number) for number in range(count)]
            noise = torch.cat([self.noise(each, image_ids) for each in seeds])
            # The values are those of the shared features, the gradient goes to the receiver.
            gradient_path = receiver.flatten(1) @ self.projection.weight.T
            shared = features.repeat(count, 1) + gradient_path - gradient_path.detach()
            logits: Tensor = self.classifier(shared + noise)
            return logits

        return realize


class SharedGradientNoise(SharedNoise):
    """The same model, which also adds gradients up at the features, and goes back through the projection once.

    The features have the shape (24, 1, 1) of an image for the normalization.
    """

    def shared_gradient(
        self, images: Tensor, seed: int, image_ids: Tensor, normalize: NormalizeGradients
    ) -> "NoiseGradient":
        return NoiseGradient(self, images, seed, image_ids, normalize)


class NoiseGradient:
    """Implements ``GradientOfRealizations`` for ``SharedGradientNoise``."""

    def __init__(
        self,
        model: SharedGradientNoise,
        images: Tensor,
        seed: int,
        image_ids: Tensor,
        normalize: NormalizeGradients,
    ) -> None:
        self.model, self.seed, self.image_ids, self.normalize = model, seed, image_ids, normalize
        self.features = model.project(images).detach()
        self.total = torch.zeros_like(self.features)
        self.shape = images.shape

    def logits(self, start: int, count: int) -> Tensor:
        seeds = [derive_seed(self.seed, "realization", start + number) for number in range(count)]
        noise = torch.cat([self.model.noise(each, self.image_ids) for each in seeds])
        self.receiver = self.features.repeat(count, 1).requires_grad_()
        logits: Tensor = self.model.classifier(self.receiver + noise)
        return logits

    def add(self, losses: Tensor) -> None:
        (gradients,) = torch.autograd.grad(losses.sum(), self.receiver)
        terms = self.normalize(gradients[:, :, None, None]).flatten(1)
        self.total += terms.unflatten(0, (-1, len(self.total))).sum(0)

    def finish(self) -> Tensor:
        return (self.total @ self.model.projection.weight).detach().reshape(self.shape)


def twins(kind: Callable[[], PlainNoise]) -> tuple[PlainNoise, PlainNoise]:
    """The plain model, and one of another kind with the same weights."""
    plain, other = PlainNoise().eval(), kind().eval()
    other.load_state_dict(plain.state_dict())
    return plain, other


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("chunk", [None, 1, 4], ids=["by rows", "one", "four"])
def test_shared_realizations_have_the_gradient_of_single_calls(average: Average, chunk: int | None) -> None:
    plain, shared = twins(SharedNoise)
    images, labels, ids = random_images()
    expected, actual = (
        eot_gradient(
            model, images, labels, realizations=7, seed=3, image_ids=ids, chunk=chunk, average=average, start=2
        )
        for model in (plain, shared)
    )
    assert expected.gradient.any()
    torch.testing.assert_close(actual.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actual.loss, expected.loss)
    torch.testing.assert_close(actual.margin, expected.margin)
    assert (plain.num_projections, shared.num_projections) == (7, 1)


@pytest.mark.parametrize("chunk", [None, 1, 4], ids=["by rows", "one", "four"])
def test_a_shared_gradient_is_the_sum_of_single_gradients(chunk: int | None) -> None:
    """The plain mean does not depend on the place where gradients are added up."""
    plain, shared = twins(SharedGradientNoise)
    images, labels, ids = random_images()
    expected, actual = (
        eot_gradient(model, images, labels, realizations=7, seed=3, image_ids=ids, chunk=chunk, average="mean")
        for model in (plain, shared)
    )
    torch.testing.assert_close(actual.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actual.loss, expected.loss)
    torch.testing.assert_close(actual.margin, expected.margin)
    assert shared.num_projections == 1


def test_a_shared_gradient_is_normalized_where_it_is_added_up() -> None:
    _, model = twins(SharedGradientNoise)
    images, labels, ids = random_images()
    estimate = eot_gradient(model, images, labels, realizations=7, seed=3, image_ids=ids)
    expected = torch.zeros(len(images), 24)
    for realization in range(7):
        features = model.project(images).detach().requires_grad_()
        noise = model.noise(derive_seed(3, "realization", realization), ids)
        loss = nn.functional.cross_entropy(model.classifier(features + noise), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, features)
        expected += gradient / gradient.norm(dim=1, keepdim=True)
    expected = (expected @ model.projection.weight.detach()).reshape(images.shape) / 7
    torch.testing.assert_close(estimate.gradient, expected, rtol=1e-4, atol=1e-6)
    assert not estimate.zero.any()
    assert not estimate.invalid.any()


def test_predictions_share_the_projection_too() -> None:
    plain, shared = twins(SharedNoise)
    images, labels, ids = random_images()
    expected, actual = (mean_margin(model, images, labels, None, 5, 3, ids) for model in (plain, shared))
    torch.testing.assert_close(actual, expected)
    assert (plain.num_projections, shared.num_projections) == (5, 1)


def test_the_rows_of_the_model_decide_how_many_realizations_are_drawn_at_once() -> None:
    plain, shared = twins(SharedNoise)
    shape = torch.Size((6, 1, 8, 8))
    assert [realizations_at_once(model, None, shape) for model in (plain, shared)] == [1, 3]


@pytest.mark.parametrize("kind", [SharedNoise, SharedGradientNoise])
def test_attacks_on_the_model_do_what_they_do_on_its_plain_form(kind: Callable[[], PlainNoise]) -> None:
    plain, shared = twins(kind)
    images, labels, ids = random_images()
    settings = PGDSettings(0.1, 0.05, 3, 2, 4, average="mean")
    search = SquareSettings(0.1, 5, 3)
    for attack, budget in ((pgd, settings), (square, search)):
        expected, actual = (
            attack(model, images, labels, budget, seed=0, image_ids=ids).images  # type: ignore[operator]
            for model in (plain, shared)
        )
        assert not torch.equal(expected, images)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


class RowNoise(nn.Module):
    """Adds noise from torch's generator to each row, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        logits: Tensor = self.classifier(images + 0.1 * torch.randn_like(images))
        return logits

    def rows_at_once(self) -> int:
        return 32


@pytest.mark.parametrize("wrap", [lambda model: model, LogProbabilities], ids=["itself", "wrapped"])
def test_rows_that_draw_by_themselves_are_answered_in_one_call(wrap: Callable[[nn.Module], nn.Module]) -> None:
    inner = RowNoise().eval()
    images, labels, ids = random_images(4)
    options = {"realizations": 20, "seed": 3, "image_ids": ids}
    first = eot_gradient(wrap(inner), images, labels, **options)
    assert inner.batches == [32, 32, 16]
    again = eot_gradient(wrap(inner), images, labels, **options)
    assert torch.equal(first.gradient, again.gradient)
    inner.batches.clear()
    one_by_one = eot_gradient(wrap(inner), images, labels, chunk=1, **options)
    assert inner.batches == [4] * 20
    cosine = torch.cosine_similarity(first.gradient.flatten(1), one_by_one.gradient.flatten(1))
    assert (cosine > 0.9).all()


def test_realizations_in_one_call_differ() -> None:
    model = RowNoise().eval()
    images, _, ids = random_images(3)
    logits = realizer(model, images, 1, ids)(0, 4, images.repeat(4, 1, 1, 1)).unflatten(0, (4, 3))
    assert len(logits.flatten(1).unique(dim=0)) == 4


def test_a_wrapped_model_with_seeds_is_called_once_a_realization() -> None:
    plain, shared = twins(SharedNoise)
    assert LogProbabilities(shared).rows_at_once() is None
    assert LogProbabilities(plain).rows_at_once() is None
