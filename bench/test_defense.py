"""The cost K of an attack step (paper, section 8.7): a forward pass and the image gradient."""

import statistics

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.conftest import Compare
from bench.measure import Action, interleaved, ratio
from bench.report import Comparison, Report
from bench.settings import CIFAR10, PRECISIONS, eager, images, ours
from neuroae.utils.contexts import autocast

PAPER_RATIO = 5.4


def image_gradient(model: nn.Module, x: Tensor, precision: str = "float32") -> Action:
    x = x.detach().requires_grad_()

    def run() -> None:
        with autocast(precision, x.device):
            logits = model(x)
        torch.autograd.grad(logits.float().logsumexp(-1).sum(), x)

    return run


@PRECISIONS
def test_defense(compare: Compare, precision: str) -> None:
    """The alternative is always in float32, as the published code runs."""
    x = images(CIFAR10)
    alternatives = {
        "eager": image_gradient(eager(CIFAR10), x),
        "channels_last": image_gradient(eager(CIFAR10, True), x.contiguous(memory_format=torch.channels_last)),
    }
    bound, aim = (3.5, 4.5) if precision == "float32" else (9, 13)
    title = f"whole defense, forward and image gradient, {precision}"
    compare(title, CIFAR10.batch, image_gradient(ours(CIFAR10), x, precision), alternatives, bound, aim)


@PRECISIONS
def test_cost_of_an_attack_step(benchmark: BenchmarkFixture, rounds: int, report: Report, precision: str) -> None:
    """K_ours / K_AT, the same precision above and below; the paper has 5.4 on a GPU."""
    x = images(CIFAR10)
    defense = image_gradient(ours(CIFAR10), x, precision)
    classifier = image_gradient(ours(CIFAR10).classifier, x, precision)
    seconds = interleaved({"defense": defense, "classifier": classifier}, rounds)
    cost = ratio(seconds["defense"], seconds["classifier"])
    bound, aim = (4.5, 3.5) if precision == "float32" else (3.0, 2.0)
    report.comparisons.append(
        Comparison(
            f"K_ours / K_AT, {precision} (paper: {PAPER_RATIO})",
            statistics.median(seconds["defense"]) / CIFAR10.batch * 1e3,
            {"K_AT": cost},
            bound,
            aim,
            lower_is_better=True,
        )
    )
    benchmark.extra_info.update(k_ratio=vars(cost), paper=PAPER_RATIO, precision=precision, bound=bound, aim=aim)
    benchmark.pedantic(defense, rounds=min(rounds, 3))
