"""Taps: where a gradient is found within a model, and that the forward pass stays what it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import random_images, small_defense
from neuroae.attacks import InputTap, LogitsTap, eot_gradient
from neuroae.attacks.losses import margin
from neuroae.attacks.taps import input_taps, logits_tap


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 64, 5))


class FrontEnd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.net = kind, classifier()

    def forward(self, images: Tensor) -> Tensor:
        if self.kind == "detached":
            images = images.detach() * 0.9
        elif self.kind == "through numpy":
            images = torch.from_numpy(images.detach().numpy().round(1))
        elif self.kind == "rounded":
            images = images.round()
        elif self.kind == "unchanged, but detached":
            images = images.detach()
        return self.net(images)


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 1, 8, 8), torch.arange(6) % 5


@pytest.mark.parametrize("kind", ["detached", "through numpy", "rounded", "unchanged, but detached"])
def test_the_first_place_after_a_break_is_found(kind: str) -> None:
    images, labels = batch()
    model = FrontEnd(kind).eval()
    path = input_taps(model, images, lambda logits: margin(logits, labels))[0]
    assert path == "net"
    tap = InputTap(model, path)
    points = images.clone().requires_grad_()
    logits = tap(points)
    assert torch.equal(logits, model(images))
    (gradient,) = torch.autograd.grad(margin(logits, labels).sum(), points)
    assert gradient.flatten(1).abs().amax(1).min() > 0


def test_an_intact_model_is_tapped_nowhere_at_its_own_input() -> None:
    images, labels = batch()
    assert input_taps(classifier().eval(), images, lambda logits: margin(logits, labels)) == []


def test_a_tap_before_the_classifier_is_w_aiga() -> None:
    """The gradient of the autoencoder as the identity, by the same draws."""
    model = small_defense().eval()
    images, ids = torch.rand(3, 1, 8, 8), torch.arange(3)
    gradients = []
    for view in (InputTap(model, "classifier"), model.with_surrogate("autoencoder-identity")):
        points = images.clone().requires_grad_()
        logits = view(points, seed=3, image_ids=ids)
        gradients.append(torch.autograd.grad(logits[:, 0].sum(), points)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_an_image_of_another_size_is_tapped_by_resizing() -> None:
    class Shrinks(FrontEnd):
        def forward(self, images: Tensor) -> Tensor:
            small = F.interpolate(images.detach(), (6, 6), mode="bilinear")
            return self.net(F.pad(small, (1, 1, 1, 1)))

    images, labels = batch()
    images = images[..., :1, :1] + 0.1 * F.interpolate(images[..., ::4, ::4], (8, 8), mode="bilinear")
    model = Shrinks("").eval()
    paths = input_taps(model, images.clamp(0, 1), lambda logits: margin(logits, labels))
    assert paths == [] or InputTap(model, paths[0])(images).shape == (6, 5)


class Squashed(nn.Module):
    def __init__(self, within: bool) -> None:
        super().__init__()
        self.net, self.within = classifier(), within

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images) if self.within else self.net[3](self.net[:3](images))
        return torch.softmax(1e4 * logits, -1)


@pytest.mark.parametrize("within", [True, False], ids=["a submodule's output", "a softmax's input"])
def test_logits_before_a_saturated_softmax_are_found(within: bool) -> None:
    images, labels = batch()
    model = Squashed(within).eval()
    path = logits_tap(model, images, lambda logits: margin(logits, labels))
    assert path is not None
    logits = LogitsTap(model, path)(images)
    assert torch.equal(logits.argmax(-1), model(images).argmax(-1))
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(LogitsTap(model, path)(points), labels).sum(), points)
    assert gradient.flatten(1).abs().amax(1).min() > 0


def test_a_model_that_answers_with_its_logits_has_none_before_them() -> None:
    images, labels = batch()
    assert logits_tap(classifier().eval(), images, lambda logits: margin(logits, labels)) is None


def test_taps_leave_the_model_as_it_was() -> None:
    images, labels = batch()
    model = FrontEnd("rounded").eval()
    InputTap(model, "net")(images)
    input_taps(model, images, lambda logits: margin(logits, labels))
    logits_tap(model, images, lambda logits: margin(logits, labels))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class ThroughNumpy(nn.Module):
    """Rounds images in NumPy, which refuses images with a gradient, before a network."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.from_numpy(images.numpy().round(1)))
        return logits


def test_an_input_tap_passes_parts_that_refuse_gradients() -> None:
    model = ThroughNumpy().eval()
    images, labels, ids = random_images(6)
    assert input_taps(model, images, lambda logits: logits.sum(1)) == ["network", "network.0"]
    assert logits_tap(model, images, lambda logits: logits.sum(1)) is None
    tapped = InputTap(model, "network")
    estimate = eot_gradient(tapped, images, labels % 5, realizations=1, seed=0, image_ids=ids, average="mean")
    inner = eot_gradient(
        model.network, images.mul(10).round() / 10, labels % 5, realizations=1, seed=0, image_ids=ids, average="mean"
    )
    torch.testing.assert_close(estimate.gradient, inner.gradient)
