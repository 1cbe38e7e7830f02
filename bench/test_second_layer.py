"""The decoder's second layer with ReLU: Winograd's filtering compared with oneDNN's direct convolution.

The alternative runs in the same precision, so the ratio shows only the gain of the algorithm.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.conftest import Compare
from bench.eager import dense_twin
from bench.measure import Action
from bench.settings import CIFAR10, PRECISIONS, ours

Forward = Callable[[Tensor], Tensor]
GRADIENTS = {"forward": 0, "forward and gradient to the input": 1, "forward and all gradients": 3}


def action(layer: nn.Module, forward: Forward, precision: str, gradients: int, layout: torch.memory_format) -> Action:
    """Returns a forward pass and gradients to the first ``gradients`` of input, weight and bias."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    shapes = (CIFAR10.batch, 300, 32, 32), (CIFAR10.batch, 100, 34, 34)
    x, towards = (torch.randn(shape).to(dtype).contiguous(memory_format=layout) for shape in shapes)
    receivers = [x, *layer.parameters()][:gradients]
    for tensor in receivers:
        tensor.requires_grad_()

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = forward(x)
        if receivers:
            torch.autograd.grad(output, receivers, towards)

    return run


@pytest.mark.parametrize("title", GRADIENTS)
@PRECISIONS
def test_second_layer(compare: Compare, precision: str, title: str) -> None:
    layer = copy.deepcopy(ours(CIFAR10).decoder.conv2)
    plain, last = dense_twin(layer), dense_twin(layer).to(memory_format=torch.channels_last)
    for twin in (plain, last):
        twin.requires_grad_(False)
    contiguous, channels_last = torch.contiguous_format, torch.channels_last
    gradients = GRADIENTS[title]
    alternatives = {
        "eager": action(plain, lambda x: F.relu(plain(x)), precision, gradients, contiguous),
        "channels_last": action(last, lambda x: F.relu(last(x)), precision, gradients, channels_last),
    }
    mine = action(layer, lambda x: layer(x, relu=True), precision, gradients, channels_last)
    compare(f"second decoder layer, {title}, {precision}", CIFAR10.batch, mine, alternatives)
