"""One step of the attack through the selection: batches of 16, few realizations."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.conftest import Compare
from bench.measure import Action
from bench.settings import CIFAR10, eager, images, ours
from neuroae import Defense
from neuroae.attacks import eot_gradient

SETTING = replace(CIFAR10, batch=16)
MOST_ROUNDS = 7
# Minimum ratios to eager PyTorch, and maximum ratios to our own step through the survivors: bound and aim.
FASTER = {2: (3.5, 4.5), 10: (4.0, 5.0)}
DEARER = {2: (1.7, 1.5), 10: (1.25, 1.15)}


def our_step(model: Defense, x: Tensor, labels: Tensor, realizations: int) -> Action:
    ids = torch.arange(len(x))
    return lambda: eot_gradient(model, x, labels, realizations=realizations, seed=0, image_ids=ids)


def eager_step(model: nn.Module, x: Tensor, labels: Tensor, realizations: int) -> Action:
    """Returns a loop over realizations of the dense model, with each gradient divided by its l2 norm."""

    def run() -> None:
        total = torch.zeros_like(x)
        for _ in range(realizations):
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
            total += gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]

    return run


def eager_selection(channels_last: bool) -> nn.Module:
    model = copy.deepcopy(eager(CIFAR10, channels_last))
    model.encoder.settings = ours(CIFAR10).with_surrogate("selection").encoder
    return model


@pytest.mark.parametrize("realizations", FASTER)
def test_selection_step(compare: Compare, realizations: int) -> None:
    x = images(SETTING)
    labels = torch.arange(len(x)) % 10
    model = ours(CIFAR10).with_surrogate("selection")
    alternatives = {
        "eager": eager_step(eager_selection(False), x, labels, realizations),
        "eager, channels_last": eager_step(
            eager_selection(True), x.contiguous(memory_format=torch.channels_last), labels, realizations
        ),
    }
    step = our_step(model, x, labels, realizations)
    title = f"selection step, {realizations} realizations"
    compare(title, len(x) * realizations, step, alternatives, *FASTER[realizations], MOST_ROUNDS)


@pytest.mark.parametrize("realizations", DEARER)
def test_selection_step_and_w_nfga(compare: Compare, realizations: int) -> None:
    """Compares with a step through the survivors alone (W-NFGA, the white-box near-full gradient approximation).

    A selection step needs one dense backward pass of the first layer, whatever the number of realizations.
    """
    x = images(SETTING)
    labels = torch.arange(len(x)) % 10
    plain, selection = (
        our_step(ours(CIFAR10).with_surrogate(name), x, labels, realizations) for name in ("smooth", "selection")
    )
    title = f"W-NFGA step beside a selection step, {realizations} realizations"
    bound, aim = DEARER[realizations]
    compare(title, len(x) * realizations, plain, {"selection": selection}, bound, aim, MOST_ROUNDS, lower=True)
