"""The comparisons on a GPU, with the dense model in eager PyTorch by default, at its best, and compiled.

By default its convolutions run in TF32, those of encoder and decoder in the default layout. At its best it runs in
channels_last, and in bfloat16 where ours does; ``torch.compile`` takes it from there. Batches of 64 are the published
size; batches of 512 and 2,048 fill the GPU. cuDNN tries out its algorithms, for all.

``DEVICE=cpu`` runs the same comparisons with tiny batches and without a compiler, to test them where there is no GPU.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.conftest import Compare
from bench.eager import EagerDefense
from bench.measure import Action
from bench.report import Comparison, Report
from bench.settings import CIFAR10, IMAGENETTE, Setting, eager, images, ours
from bench.test_defense import image_gradient
from bench.test_eot import REALIZATIONS, our_step, published_step
from bench.test_first_layer import gradient_action, on_values
from bench.test_training import eager_step
from bench.test_training import our_step as our_training_step
from neuroae.kernels import backend_name
from neuroae.utils.contexts import autocast

GPU = os.environ.get("DEVICE", "cuda")
pytestmark = pytest.mark.skipif(GPU == "cuda" and not torch.cuda.is_available(), reason="needs a GPU")

BATCHES = (64, 512, 2048) if GPU == "cuda" else (2, 3, 4)
SMALL, FULL, LARGE = (replace(CIFAR10, batch=batch) for batch in BATCHES)
PHOTOS = replace(IMAGENETTE, batch=64 if GPU == "cuda" else 1)
EVERY_BATCH = pytest.mark.parametrize("setting", [SMALL, FULL, LARGE], ids=lambda setting: f"{setting.batch}")
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


def synchronized(action: Action) -> Action:
    """Returns the action followed by a wait for the GPU."""

    def run() -> None:
        action()
        if GPU == "cuda":
            torch.cuda.synchronize()

    return run


@pytest.fixture(autouse=True)
def _tuned_convolutions() -> Iterator[None]:
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.backends.cudnn.benchmark = before


def compiled(model: nn.Module) -> nn.Module:
    """Returns the compiled model. Without a GPU it is only traced, since compiling takes minutes there."""
    return torch.compile(model) if GPU == "cuda" else torch.compile(model, backend="eager")


@pytest.fixture
def compare_on_gpu(compare: Compare, report: Report) -> Compare:
    def run(title: str, count: int, mine: Action, alternatives: dict[str, Action]) -> Comparison:
        timed = {name: synchronized(action) for name, action in alternatives.items()}
        name = torch.cuda.get_device_name() if GPU == "cuda" else "a stand-in on the CPU"
        report.note(f"GPU: {name}, {backend_name(GPU)} backend")
        return compare(f"GPU: {title}", count, synchronized(mine), timed, device=GPU)

    return run


def pixels(setting: Setting) -> tuple[Tensor, Tensor]:
    """Returns the images in the default layout and in channels_last."""
    x = images(setting).to(GPU)
    return x, x.contiguous(memory_format=torch.channels_last)


def in_precision(precision: str, action: Action) -> Action:
    def run() -> None:
        with autocast(precision, torch.device(GPU)):
            action()

    return run


@pytest.mark.parametrize("setting", [SMALL, FULL, LARGE, PHOTOS], ids=lambda s: f"{s.name} {s.batch}")
@torch.no_grad()
def test_encode(compare_on_gpu: Compare, setting: Setting) -> None:
    x, last = pixels(setting)
    encoder = ours(setting, GPU).encoder
    default, best = (eager(setting, layout, GPU).encoder for layout in (False, True))
    fastest = compiled(best)
    alternatives = {
        "eager": lambda: default(x),
        "channels_last": lambda: best(last),
        "compiled": lambda: fastest(last),
    }
    compare_on_gpu(f"encode, {setting.name}, batch {setting.batch}", len(x), lambda: encoder.encode(x), alternatives)


@PRECISIONS
def test_first_layer(compare_on_gpu: Compare, precision: str) -> None:
    """Forward and gradient to the code's values, with ReLU."""
    with torch.no_grad():
        dense = ours(FULL, GPU).encoder(pixels(FULL)[0], seed=0).contiguous()
    default, best = eager_models()
    last = dense.contiguous(memory_format=torch.channels_last)
    with autocast(precision, torch.device(GPU)):
        mine = gradient_action(*on_values(FULL, GPU))
        fastest = gradient_action(best.first_layer, last)
    alternatives = {"eager": gradient_action(default.first_layer, dense), "best": in_precision(precision, fastest)}
    title = f"first decoder layer, {precision}, batch {FULL.batch}"
    compare_on_gpu(title, FULL.batch, in_precision(precision, mine), alternatives)


def eager_models() -> tuple[EagerDefense, EagerDefense]:
    return eager(CIFAR10, False, GPU), eager(CIFAR10, True, GPU)


@EVERY_BATCH
@PRECISIONS
def test_defense(compare_on_gpu: Compare, precision: str, setting: Setting) -> None:
    x, last = pixels(setting)
    default, best = eager_models()
    alternatives = {
        "eager": image_gradient(default, x),
        "best": image_gradient(best, last, precision),
        "compiled": image_gradient(compiled(best), last, precision),
    }
    mine = image_gradient(ours(CIFAR10, GPU), x, precision)
    title = f"whole defense and image gradient, {precision}, batch {setting.batch}"
    compare_on_gpu(title, len(x), mine, alternatives)


@PRECISIONS
def test_cost_of_an_attack_step(compare_on_gpu: Compare, precision: str) -> None:
    """The inverse of the paper's K_ours / K_AT, which is 5.4 on its GPU: the classifier is the alternative."""
    x, _ = pixels(FULL)
    model = ours(CIFAR10, GPU)
    alternatives = {"K_AT / K_ours": image_gradient(model.classifier, x, precision)}
    title = f"cost of an attack step, {precision}, batch {FULL.batch}"
    compare_on_gpu(title, len(x), image_gradient(model, x, precision), alternatives)


@PRECISIONS
def test_eot_step(compare_on_gpu: Compare, precision: str) -> None:
    x, last = pixels(replace(CIFAR10, batch=16 if GPU == "cuda" else 1))
    labels = torch.arange(len(x), device=GPU) % 10
    default, best = eager_models()
    realizations = REALIZATIONS if GPU == "cuda" else 2
    alternatives = {
        "loop": published_step(default, x, labels, realizations),
        "loop, best": in_precision(precision, published_step(best, last, labels, realizations)),
    }
    title = f"EOT gradient step, {len(x)} images, {realizations} realizations, {precision}"
    compare_on_gpu(title, len(x) * realizations, our_step(x, labels, precision, realizations), alternatives)


@pytest.mark.parametrize("setting", [SMALL, FULL], ids=lambda setting: f"{setting.batch}")
@PRECISIONS
def test_training_step(compare_on_gpu: Compare, precision: str, setting: Setting) -> None:
    alternatives = {
        "eager": eager_step(False, GPU, setting=setting),
        "best": eager_step(True, GPU, precision, setting=setting),
        "compiled": eager_step(True, GPU, precision, compiled, setting),
    }
    title = f"training step, {precision}, batch {setting.batch}"
    compare_on_gpu(title, setting.batch, our_training_step(precision, GPU, setting), alternatives)
