"""Straight-through gradients: the forward pass is exact, and quantizers of every kind pass a useful gradient on."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroae.attacks import StraightThrough

LEVELS = torch.linspace(0, 1, 8)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "round": lambda x: (x * 7).round() / 7,
    "round in place": lambda x: (x * 7).round_().div(7),
    "floor": lambda x: torch.floor(x * 8) / 8,
    "bytes": lambda x: (x * 255).byte().float() / 255,
    "integers and division": lambda x: ((x * 255).long() // 32 * 32).float() / 255,
    "to another dtype": lambda x: (x * 7).to(torch.int32).to(torch.float32) / 7,
    "thermometer code": lambda x: (x[..., None] > LEVELS).float().mean(-1),
    "where": lambda x: torch.where(x > 0.5, 1.0, 0.0),
    "mask times image": lambda x: (x >= 0.5) * torch.ones(()),
    "look-up table": lambda x: LEVELS[(x * 7).long()],
    "embedding": lambda x: F.embedding((x * 7).long(), LEVELS[:, None])[..., 0],
    "one-hot": lambda x: (F.one_hot((x * 7).round().long(), 8).float() * LEVELS).sum(-1),
    "bucketize": lambda x: torch.bucketize(x, LEVELS).float() / 8,
    "searchsorted": lambda x: torch.searchsorted(LEVELS, x.contiguous()).float() / 8,
}


@pytest.mark.parametrize("quantize", QUANTIZERS.values(), ids=QUANTIZERS)
def test_a_quantizer_is_exact_and_its_gradient_rises_with_the_pixel(quantize: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    images = (0.02 + 0.96 * torch.rand(2, 1, 4, 4)).requires_grad_()
    output = StraightThrough(Function(quantize))(images)
    assert torch.equal(output, quantize(images.detach()))
    (gradient,) = torch.autograd.grad(output.sum(), images)
    assert (gradient >= 0).all()
    assert (gradient > 0).float().mean() > 0.9


def test_what_has_a_gradient_keeps_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    images = torch.rand(4, 1, 4, 4, requires_grad=True)
    expected = torch.autograd.grad(model(images)[:, 0].sum(), images)[0]
    actual = torch.autograd.grad(StraightThrough(model)(images)[:, 0].sum(), images)[0]
    assert torch.equal(actual, expected)


def test_a_shadow_is_not_added_to_the_gradient_that_is_there() -> None:
    """x * (x > c): the mask's stand-in comes on top of the pixel's own gradient, which counts once."""
    images = torch.full((1, 1, 1, 1), 0.9, requires_grad=True)
    output = StraightThrough(Function(lambda x: x * (x > 100.0)))(images)
    (gradient,) = torch.autograd.grad(output.sum(), images)
    width = 0.5 * 99.1
    step = torch.sigmoid(torch.tensor(-99.1 / width))
    assert output == 0
    assert gradient.item() == pytest.approx(float(step * (1 - step) / width * 0.9), rel=1e-3)
