"""Stand-ins for gradients: exact forward passes, and the gradient of what stands in."""

import pytest
import torch
from torch import Tensor, nn

from neuroae.attacks import bpda
from neuroae.attacks.bpda import LogProbabilities, Smoothed


class Rounds(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 7).round() / 7


class Halves(nn.Module):
    """Half the height and width."""

    def forward(self, images: Tensor) -> Tensor:
        return images[..., ::2, ::2].round()


def gradient(module: nn.Module, images: Tensor, weight: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (module(images) * weight).sum().backward()
    assert images.grad is not None
    return images.grad


@pytest.mark.parametrize("factor", [1.0, -2.5])
def test_a_stand_in_gives_its_gradient_and_the_module_its_output(factor: float) -> None:
    images, weight = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    module = bpda(Rounds(), lambda inputs: factor * inputs)
    assert torch.equal(module(images), Rounds()(images))
    torch.testing.assert_close(gradient(module, images, weight), factor * weight)


def test_the_identity_is_a_stand_in_by_name() -> None:
    images, weight = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(gradient(bpda(Rounds()), images, weight), weight)


def test_the_identity_is_resized_where_the_output_has_another_size() -> None:
    images, weight = torch.rand(1, 1, 8, 8), torch.ones(1, 1, 4, 4)
    module = bpda(Halves(), "identity")
    assert torch.equal(module(images), Halves()(images))
    assert gradient(module, images, weight).sum() == pytest.approx(16, rel=1e-5)


def test_a_module_is_a_stand_in() -> None:
    torch.manual_seed(0)
    blur = nn.Conv2d(3, 3, 3, padding=1)
    images, weight = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(gradient(bpda(Rounds(), blur), images, weight), gradient(blur, images, weight))


@pytest.mark.parametrize(
    ("module", "backward", "error", "message"),
    [
        (Rounds(), "idendity", ValueError, "backward is 'idendity', expected 'identity'"),
        (Rounds(), 3, TypeError, "backward is a int, expected 'identity', a callable or a module"),
        (torch.round, "identity", TypeError, "module is a builtin_function_or_method, expected a torch.nn.Module"),
    ],
    ids=["misspelt", "a number", "a function for the module"],
)
def test_what_cannot_stand_in_is_refused(module: object, backward: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        bpda(module, backward)  # type: ignore[arg-type]


def test_a_stand_in_of_another_kind_of_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stand-in has shape \(2, 1, 8, 8\), expected \(2, 3, 8, 8\)"):
        bpda(Rounds(), lambda images: images[:, :1])(torch.rand(2, 3, 8, 8))


def test_probabilities_become_logits_of_the_same_order() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(-1)).eval()
    images = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(LogProbabilities(model)(images).softmax(-1), model(images))


def test_a_probability_of_zero_has_a_finite_logarithm() -> None:
    saturated = nn.Sequential(nn.Flatten(), nn.Softmax(-1)).eval()
    assert LogProbabilities(saturated)(1e6 * torch.eye(4).view(4, 1, 2, 2)).isfinite().all()


def test_noise_smooths_a_step_whose_own_gradient_is_zero_elsewhere() -> None:
    """The mean gradient of a clipped ramp near its edge: positive, where that of the ramp itself is 0."""
    ramp = nn.Sequential(nn.Flatten(), nn.Hardtanh(0.5, 1)).eval()
    images = torch.full((1, 1, 1, 1), 0.45)
    one = torch.ones(1, 1)
    assert gradient(ramp, images, one) == 0
    torch.manual_seed(0)
    smooth = torch.stack([gradient(Smoothed(ramp, 0.1), images, one) for _ in range(200)]).mean()
    assert smooth == pytest.approx(0.3, abs=0.1)
