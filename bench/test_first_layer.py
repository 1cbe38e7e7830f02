"""The decoder's first layer with ReLU, on the code, compared with ``nn.ConvTranspose2d`` on the dense tensor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.conftest import Compare
from bench.measure import Action
from bench.settings import CIFAR10, IMAGENETTE, Setting, eager, images, ours
from neuroae import SparseCode

SETTINGS = pytest.mark.parametrize("setting", [CIFAR10, IMAGENETTE], ids=lambda setting: setting.name)

Layer = Callable[[Tensor], Tensor]


def forward_action(layer: Layer, x: Tensor) -> Action:
    @torch.no_grad()
    def run() -> None:
        layer(x)

    return run


def gradient_action(layer: Layer, x: Tensor) -> Action:
    """Returns a forward pass and the gradient from a fixed direction to the input."""
    x = x.detach().requires_grad_()
    towards = torch.randn_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), x, towards)


def on_values(setting: Setting, device: str = "cpu") -> tuple[Layer, Tensor]:
    """Returns our layer as a function of the code's values, and values."""
    model = ours(setting, device)
    code = model.encoder.encode(images(setting).to(device), seed=0)
    layer = model.decoder.conv1

    def run(value: Tensor) -> Tensor:
        return layer(SparseCode(code.index, value, code.projection, code.count, code.atoms), relu=True)

    return run, code.value


def compare_layer(compare: Compare, setting: Setting, title: str, action: Callable[[Layer, Tensor], Action]) -> None:
    dense = ours(setting).encoder(images(setting), seed=0).contiguous()
    alternatives = {
        "eager": action(eager(setting).first_layer, dense),
        "channels_last": action(eager(setting, True).first_layer, dense.contiguous(memory_format=torch.channels_last)),
    }
    bound, aim = (15, 25) if setting is CIFAR10 else (None, None)
    compare(f"{setting.name}: {title}", setting.batch, action(*on_values(setting)), alternatives, bound, aim)


@SETTINGS
def test_forward(compare: Compare, setting: Setting) -> None:
    compare_layer(compare, setting, "first decoder layer, forward", forward_action)


@SETTINGS
def test_gradient(compare: Compare, setting: Setting) -> None:
    compare_layer(compare, setting, "first decoder layer, forward and gradient to the code", gradient_action)
