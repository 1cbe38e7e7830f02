"""The probe: each model's trouble is named, with its numbers, and a sound model has none."""

import pytest
import torch
from torch import Tensor, nn

from attacked_models import Silent
from models import Linear, small_defense
from neuroae.attacks import Probe, probe
from neuroae.attacks.probe import has_inner_optimization


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(8, 1, 8, 8), torch.arange(8) % 5, torch.arange(8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)).eval()


def examined(model: nn.Module) -> Probe:
    images, labels, ids = batch()
    return probe(model, images, labels, ids, 0, 4 / 255)


class Before(nn.Module):
    """A front end before the network."""

    def __init__(self, front: object) -> None:
        super().__init__()
        self.front, self.net = front, network()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.front(images))  # type: ignore[operator]


class Misleading(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return torch.randn_like(grad)


def test_a_sound_model_has_a_usable_gradient_and_nothing_else_to_say() -> None:
    result = examined(network())
    assert result.gradient == "usable"
    assert result.cosine > 0.95
    assert (result.zero, result.not_finite, result.realizations) == (0, 0, 1)
    assert not any((result.random, result.probabilities, result.optimizes, result.straight_through))
    assert result.batch_difference == pytest.approx(0, abs=1e-5)
    assert result.logits_tap is None


@pytest.mark.parametrize(
    ("front", "kind"),
    [
        (lambda images: images.round(), "zero"),
        (lambda images: images.detach(), "missing"),
        (Misleading.apply, "misleading"),
    ],
    ids=["rounding", "detached", "random gradient"],
)
def test_a_gradient_that_is_of_no_use_is_named(front: object, kind: str) -> None:
    result = examined(Before(front).eval())
    assert result.gradient == kind
    assert abs(result.cosine) < 0.3
    assert "net" in result.input_taps or kind == "misleading"


def test_gradients_that_are_not_finite_are_named() -> None:
    images, labels, ids = batch()
    images[:, 0, 0, 0] = 1
    result = probe(Silent().eval(), images, labels, ids, 0, 4 / 255)
    assert result.gradient == "not finite"
    assert result.not_finite == 1


def test_probabilities_are_recognised_and_their_logits_found() -> None:
    result = examined(nn.Sequential(network(), nn.Softmax(-1)).eval())
    assert result.probabilities
    assert result.gradient == "usable"
    assert result.logits_tap is not None


def test_rounding_gains_a_gradient_by_the_straight_through_mode() -> None:
    assert examined(Before(lambda images: (images * 7).round() / 7).eval()).straight_through


def test_a_random_model_is_given_realizations_until_gradients_agree() -> None:
    quiet = examined(Before(lambda images: images + 0.01 * torch.randn_like(images)).eval())
    loud = examined(Before(lambda images: images + torch.randn_like(images)).eval())
    assert quiet.random
    assert loud.random
    assert quiet.realizations < loud.realizations
    assert quiet.agreement[quiet.realizations] >= 0.5


def test_a_model_that_draws_by_image_id_is_repeatable_in_batches() -> None:
    result = examined(small_defense().eval())
    assert result.random
    assert result.batch_difference == pytest.approx(0, abs=1e-5)


def test_answers_that_depend_on_the_batch_are_measured() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images - images.mean(0))

    difference = examined(Centred().eval()).batch_difference
    assert difference is not None
    assert difference > 0.01


class Optimizes(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.net, self.how = network(), how

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            points = images.detach().clone().requires_grad_()
            loss = self.net(points).square().sum()
            if self.how == "autograd.grad":
                torch.autograd.grad(loss, points)
            elif self.how == "backward":
                loss.backward()
            elif self.how == "an optimizer":
                torch.optim.SGD([points], 0.1).step()
        return self.net(images)


@pytest.mark.parametrize(
    ("how", "expected"), [("autograd.grad", True), ("backward", True), ("an optimizer", True), ("nothing", False)]
)
def test_optimization_within_the_forward_pass_is_noticed(how: str, expected: bool) -> None:
    images, _, ids = batch()
    assert has_inner_optimization(Optimizes(how).eval(), images, 0, ids) is expected


def test_a_probe_survives_json() -> None:
    result = examined(small_defense().eval())
    assert Probe.from_json(result.as_json()) == result


def test_a_linear_model_agrees_with_differences() -> None:
    torch.manual_seed(0)
    images, labels, ids = batch()
    assert probe(Linear(1, 8, 5).eval(), images, labels, ids, 0, 4 / 255).cosine > 0.9
