"""The encoder, compared with conv2d, topk, scatter, dropout and quantization."""

import pytest
import torch

from bench.conftest import Compare
from bench.measure import Action, Part
from bench.settings import CIFAR10, IMAGENETTE, Setting, eager, images, ours

SETTINGS = pytest.mark.parametrize("setting", [CIFAR10, IMAGENETTE], ids=lambda setting: setting.name)


def eager_encodings(setting: Setting, count: int = 1) -> dict[str, Action]:
    """Returns ``count`` encodings by the alternative, in its default layout and in channels_last."""

    def action(channels_last: bool) -> Action:
        x = images(setting)
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        encoder = eager(setting, channels_last).encoder

        def run() -> None:
            for _ in range(count):
                encoder(x)

        return run

    return {"eager": action(False), "channels_last": action(True)}


@SETTINGS
@torch.no_grad()
def test_encode(compare: Compare, setting: Setting) -> None:
    x, encoder = images(setting), ours(setting).encoder
    bound, aim = (15, 25) if setting is CIFAR10 else (None, None)
    title = f"{setting.name}: encode to the compact code, 1 realization"
    compare(title, setting.batch, lambda: encoder.encode(x), eager_encodings(setting), bound, aim)


@SETTINGS
@torch.no_grad()
def test_dense(compare: Compare, setting: Setting) -> None:
    x, encoder = images(setting), ours(setting).encoder
    bound, aim = (5, 8) if setting is CIFAR10 else (None, None)
    title = f"{setting.name}: encoder(images) to the dense tensor"
    compare(title, setting.batch, lambda: encoder(x), eager_encodings(setting), bound, aim)


@torch.no_grad()
def test_realizations(compare: Compare) -> None:
    """Both sides compute one realization after the other and discard it, as an ensemble or an EOT gradient does."""
    x, encoder = images(CIFAR10), ours(CIFAR10).encoder

    def stream() -> None:
        selection = encoder.select(x)
        for start in range(40):
            selection.draw(seed=0, start=start)

    title = "CIFAR-10: 40 realizations to compact codes"
    # Only four are timed, since each is the same work.
    alternatives = {"eager": Part(eager_encodings(CIFAR10, 4)["eager"], 10)}
    compare(title, CIFAR10.batch, stream, alternatives, 60, 120)
