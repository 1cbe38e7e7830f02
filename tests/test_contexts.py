"""Generators that are lent: what is drawn follows from the seed, and nobody else notices."""

import pytest
import torch

from neuroae.contexts import drawing_from
from neuroae.presets import PRESETS, make_classifier


def test_draws_follow_from_the_seed_and_leave_the_generator_as_it_was() -> None:
    expected = torch.rand(2)
    torch.manual_seed(0)
    drawn = []
    for seed in (7, 7, 8):
        with drawing_from(seed):
            drawn.append(torch.rand(2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_models_are_made_without_a_look_at_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """To save their states would start CUDA, and take memory on each of them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("manual_seed_all", "get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("touched a GPU"))
    make_classifier(PRESETS["digits"], 10, 0)
