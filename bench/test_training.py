"""A training step of the nominal defense: encode, forward, backward to all weights, optimizer."""

import copy
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from bench.conftest import Compare
from bench.measure import Action, interleaved, ratio
from bench.report import Comparison, Report
from bench.settings import CIFAR10, FASTEST, PRECISIONS, Setting, eager, images, ours
from neuroae.data import ImageSet
from neuroae.training import TrainingSettings
from neuroae.training.batches import Batch, batches
from neuroae.training.gradients import Gradients
from neuroae.training.history import Meter
from neuroae.training.loop import make_state, step
from neuroae.training.methods import Supervised
from neuroae.utils.contexts import autocast

STEPS = 1000
LARGEST_SHARE = 0.03


def trainable(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(True).train()


def data(setting: Setting = CIFAR10) -> ImageSet:
    """Returns a thousand batches of the same images, so that the learning rate is that of a real training's start."""
    pixels = (images(setting) * 255).byte().repeat(STEPS, 1, 1, 1)
    labels = torch.arange(len(pixels)) % 10
    return ImageSet("crops", pixels, labels, torch.arange(len(pixels)), tuple("0123456789"))


def our_step(precision: str, device: str = "cpu", setting: Setting = CIFAR10) -> Action:
    settings = TrainingSettings(precision=precision, augment=True, batch_size=setting.batch)
    task = Supervised(trainable(ours(CIFAR10, device)))  # type: ignore[arg-type]
    state, meter = make_state(task, settings, STEPS), Meter()
    batch = next(batches(data(setting), settings, "benchmark", 0, torch.device(device)))
    gradients = Gradients(task, precision)
    return lambda: step(gradients, state, batch, meter)


def eager_step(
    channels_last: bool,
    device: str = "cpu",
    precision: str = "float32",
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
    setting: Setting = CIFAR10,
) -> Action:
    """Returns a training step of the dense model, which ``prepare`` may compile."""
    model = prepare(trainable(eager(CIFAR10, channels_last, device)))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = images(setting).to(device).contiguous(memory_format=layout)
    labels = torch.arange(setting.batch, device=device) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def run() -> None:
        with autocast(precision, x.device):
            loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


@PRECISIONS
def test_training_step(compare: Compare, precision: str) -> None:
    """The alternative is always in float32, as the published code runs."""
    alternatives = {"eager": eager_step(False), "channels_last": eager_step(True)}
    bound, aim = (2.5, 3) if precision == "float32" else (6, 8)
    compare(f"training step, {precision}", CIFAR10.batch, our_step(precision), alternatives, bound, aim)


def test_share_of_data_loading(benchmark: BenchmarkFixture, rounds: int, report: Report) -> None:
    """Compares loading, augmenting and scaling a batch with the fastest step."""
    settings = TrainingSettings(augment=True)
    source: Iterator[Batch] = batches(data(), settings, "benchmark", 0, torch.device("cpu"))
    seconds = interleaved({"loading": lambda: next(source), "step": our_step(FASTEST)}, rounds)
    share = ratio(seconds["loading"], seconds["step"])
    report.comparisons.append(
        Comparison(
            f"loading and augmentation, as a share of a {FASTEST} step",
            statistics.median(seconds["loading"]) / CIFAR10.batch * 1e3,
            {"share": share},
            LARGEST_SHARE,
            LARGEST_SHARE,
            lower_is_better=True,
        )
    )
    benchmark.extra_info.update(share=vars(share), bound=LARGEST_SHARE)
    benchmark.pedantic(lambda: next(source), rounds=3)
