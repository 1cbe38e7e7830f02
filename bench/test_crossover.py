"""The first decoder layer on codes with many survivors: the gather, the dense product, and the layer's choice.

Ratios above 1 say that the layer's choice is faster than always gathering, or than always multiplying densely.
"""

import pytest
import torch
from torch import Tensor

from bench.conftest import Compare
from bench.measure import Action
from bench.settings import CIFAR10, IMAGENETTE, PRECISIONS, Setting, encoder, images, ours
from neuroae import SparseCode, SparseEncoder
from neuroae.nn.convolutions import is_dense
from neuroae.utils.contexts import autocast

CPU = torch.device("cpu")
# T and p of the paper's ablations (Tables 2 and 5), and codes on both sides of the crossover.
CODES = {
    CIFAR10: [(500, 0.95), (50, 0.0), (100, 0.0), (200, 0.0)],
    IMAGENETTE: [(50, 0.0), (200, 0.0)],
}
CASES = [(setting, *code) for setting, codes in CODES.items() for code in codes]
BATCHES = {CIFAR10: 16, IMAGENETTE: 2}


def action(setting: Setting, code: SparseCode, precision: str, weights: bool, dense: bool | None) -> Action:
    """Returns a forward pass and the gradient to the values, or to the weights too; None for the layer's choice."""
    layer = ours(setting).decoder.conv1
    value = code.value.detach().requires_grad_()
    survivors = code.survivors if dense is None else None
    chosen = SparseCode(code.index, value, code.projection, code.count, code.atoms, survivors=survivors)
    receivers = [value, *layer.parameters()] if weights else [value]

    def run() -> None:
        layer.requires_grad_(weights)
        with autocast(precision, CPU):
            output: Tensor = layer(chosen.to_dense() if dense else chosen, relu=True)
        torch.autograd.grad(output, receivers, torch.ones_like(output))
        layer.requires_grad_(False)

    return run


@pytest.mark.parametrize("weights", [False, True], ids=["values", "values and weights"])
@PRECISIONS
@pytest.mark.parametrize(("setting", "top_t", "p"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_crossover(compare: Compare, setting: Setting, top_t: int, p: float, precision: str, weights: bool) -> None:
    sparse = SparseEncoder(encoder(setting).atoms, stride=setting.stride, top_t=top_t, dropout_p=p)
    code = sparse.encode(images(setting)[: BATCHES[setting]], seed=0)
    choice = "dense" if is_dense(code, getattr(torch, precision)) else "gather"
    gradients = "values, weights" if weights else "values"
    compare(
        f"{setting.name}, T {top_t}, p {p:g}, {gradients}, {precision}: {choice}",
        BATCHES[setting],
        action(setting, code, precision, weights, None),
        {name: action(setting, code, precision, weights, name == "dense") for name in ("gather", "dense")},
    )
