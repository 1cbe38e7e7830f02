"""Which device a process computes on."""

import pytest
import torch

from neuroae.utils import devices
from neuroae.utils.devices import choose_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("LOCAL_WORLD_SIZE", *devices.ISOLATION_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices.torch, "empty", lambda *_, **__: None)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [
        (None, "1", "cuda:1"),
        ("cuda", "1", "cuda:1"),
        ("cuda", None, "cuda:0"),
        ("cuda:0", "1", "cuda:0"),
        ("cpu", "1", "cpu"),
    ],
)
def test_each_process_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str | None, rank: str | None, expected: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["warp", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}', which cannot be used here"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda:0", 2, "device is 'cuda:0' for each of 2 processes; \"cuda\" gives each its own"),
        ("cuda", 3, "4 processes have 3 GPUs here"),
        (None, 3, "4 processes have 3 GPUs here"),
        (None, 1, "4 processes have 1 GPUs here"),
    ],
    ids=["one for all", "too few", "too few, not named", "one"],
)
def test_processes_that_would_share_a_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, name: str | None, gpus: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 if gpus == 2 else 4))
    with pytest.raises(ValueError, match=message):
        choose_device(name)


def test_devices_without_float64_are_refused(two_gpus: None) -> None:
    with pytest.raises(ValueError, match="device is 'mps', expected one of the types cpu, cuda"):
        choose_device("mps")
