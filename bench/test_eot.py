"""One gradient step of expectation over transformation (EOT): 40 realizations, batches of 16, as in attacks."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.conftest import Compare
from bench.measure import Action, Part
from bench.settings import CIFAR10, PRECISIONS, eager, images, ours
from neuroae.attacks.steps import StepGradients
from neuroae.utils.contexts import autocast, frozen

SETTING = replace(CIFAR10, batch=16)
REALIZATIONS, TIMED = 40, 4
MOST_ROUNDS = 7


def our_step(x: Tensor, labels: Tensor, precision: str, realizations: int = REALIZATIONS) -> Action:
    """Returns a step as attacks make them, on a GPU from a CUDA graph after the first."""
    model, ids = ours(CIFAR10, x.device.type), torch.arange(len(x), device=x.device)
    gradients = StepGradients(
        model, labels, None, ids, realizations=realizations, chunk=None, average="normalized", loss="cross-entropy"
    )

    def run() -> None:
        with autocast(precision, x.device), frozen(model):
            gradients(x, 0)

    return run


def published_step(model: nn.Module, x: Tensor, labels: Tensor, realizations: int = REALIZATIONS) -> Action:
    """Returns a loop over forward and backward passes of the dense model; each gradient is divided by its l2 norm."""

    def run() -> None:
        total = torch.zeros_like(x)
        for _ in range(realizations):
            leaf = x.detach().requires_grad_()
            loss = F.cross_entropy(model(leaf), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf)
            total += gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]

    return run


@PRECISIONS
def test_eot_step(compare: Compare, precision: str) -> None:
    """The alternative is always in float32, as the published code runs."""
    x = images(SETTING)
    labels = torch.arange(len(x)) % 10
    last = x.contiguous(memory_format=torch.channels_last)
    loops = {"loop": (eager(CIFAR10), x), "loop, channels_last": (eager(CIFAR10, True), last)}
    # Only a few realizations are timed, since each is the same work.
    alternatives: dict[str, Action] = {
        name: Part(published_step(*loop, labels, TIMED), REALIZATIONS / TIMED) for name, loop in loops.items()
    }
    bound, aim = (3.5, 4.5) if precision == "float32" else (9, 13)
    title = f"EOT gradient step, {REALIZATIONS} realizations, {precision}"
    compare(title, len(x) * REALIZATIONS, our_step(x, labels, precision), alternatives, bound, aim, MOST_ROUNDS)
