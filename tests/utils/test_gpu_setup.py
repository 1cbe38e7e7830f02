"""Set-up before work on a GPU, as far as it can be tested without one."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from models import small_defense
from neuroae import kernels
from neuroae.attacks.protocol import chunk_rule, realizations_at_once
from neuroae.evaluation.plan import device_of
from neuroae.nn.defense import ROWS
from neuroae.utils import distributed


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records the calls of torch by a process that ``torchrun`` started, in order."""
    log: list[object] = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setattr(torch.cuda, "set_device", log.append)
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda backend, timeout, device_id: log.append((backend, device_id))
    )
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: log.append("left"))
    return log


def test_a_process_on_a_gpu_names_its_device_before_it_joins(calls: list[object]) -> None:
    device = torch.device("cuda:1")
    with distributed.group(device):
        pass
    assert calls == [device, ("nccl", device), "left"]


@pytest.mark.parametrize(
    ("device", "expected"), [("cuda:1", ("nccl", torch.device("cuda:1"))), ("cpu", "left")], ids=["nccl", "gloo"]
)
def test_a_process_that_fails_leaves_only_where_that_waits_for_nobody(
    calls: list[object], device: str, expected: object
) -> None:
    with suppress(KeyError), distributed.group(torch.device(device)):
        raise KeyError
    assert calls[-1] == expected


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for Triton's; ``reason`` is why it cannot be made, None where it can."""
    runtime = pytest.importorskip("triton.runtime")
    stub = SimpleNamespace(reason=None)

    class Driver:
        @property
        def active(self) -> SimpleNamespace:
            if stub.reason:
                raise RuntimeError(stub.reason)
            return SimpleNamespace(get_current_target=lambda: "a GPU")

    monkeypatch.setattr(runtime, "driver", Driver())
    monkeypatch.setattr(kernels, "backend_name", kernels.backend_name.__wrapped__)
    return stub


def test_a_gpu_is_served_by_triton(driver: SimpleNamespace) -> None:
    assert kernels.backend_name("cuda") == "triton"


def test_a_gpu_without_a_compiler_for_tritons_driver_is_served_by_the_reference(driver: SimpleNamespace) -> None:
    driver.reason = "Failed to find C compiler.\nPlease specify one."
    with pytest.warns(
        UserWarning, match=r"reference backend .*Triton cannot run kernels here: Failed to find C compiler\.$"
    ):
        assert kernels.backend_name("cuda") == "reference"


def test_a_kernel_refuses_tensors_of_several_devices() -> None:
    launch = pytest.importorskip("neuroae.kernels.triton.launch")
    arguments = {"code": torch.empty(1), "weight": torch.empty(1, device="meta"), "height": 3}
    with pytest.raises(
        ValueError, match="a kernel has code on cpu, weight on meta, expected all tensors on one device"
    ):
        launch.Launch(None, 1, arguments, {}, 1).run()


def test_a_device_decides_how_many_realizations_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "cpu", 8)
    assert realizations_at_once(small_defense(), None, torch.Size((2, 3, 32, 32))) == 4
    assert chunk_rule(small_defense(), None) == "8 rows"


def test_models_are_where_their_buffers_are_when_they_have_no_parameters() -> None:
    model = torch.nn.Module()
    model.register_buffer("templates", torch.empty(2, device="meta"))
    assert device_of(model) == torch.device("meta")
    assert device_of(torch.nn.Identity()) == torch.device("cpu")
