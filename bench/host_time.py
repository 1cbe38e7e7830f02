"""Host time of the Triton backend's raw operations: how long Python keeps a GPU waiting for the next launch.

    python -m bench.host_time

Triton gets a stand-in driver, which compiles for sm_90 and launches nothing, and the operations run on a small image
on the CPU: what remains is the dispatcher, the checks, the allocation of outputs and the preparation of launches. The
call of CUDA's driver itself, about 3 microseconds a launch, comes on top. ``torch.add`` shows what an operation of
PyTorch takes on this machine. The aim is 20 microseconds an operation; nothing fails above it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget

from bench.measure import Action
from bench.settings import CIFAR10, encoder, images
from neuroae.kernels import registration
from neuroae.kernels.triton import checks
from neuroae.kernels.triton.launch import Launch

AIM = 20
CALLS = 200
BLOCKS = 15


class IdleLauncher:
    """Takes a kernel's arguments like Triton's launcher, which asks tensors for their addresses, and does nothing."""

    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        for argument in arguments:
            if isinstance(argument, Tensor):
                argument.data_ptr()


class IdleDriver:
    """A driver of a GPU that is not there."""

    launcher_cls = IdleLauncher
    utils = SimpleNamespace(
        load_binary=lambda name, kernel, shared, device: (1, 1, 0, 0, 1024),
        unload_module=lambda module: None,
        get_device_properties=lambda device: {"max_shared_mem": 232_448},
    )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def pretend_to_have_a_gpu() -> None:
    """Makes operations on CPU tensors run the Triton backend as on an NVIDIA GPU, for the life of the process."""
    triton.runtime.driver.set_active(IdleDriver())  # type: ignore[no-untyped-call]
    registration.backend_name = lambda device_type: "triton"  # type: ignore[assignment]
    checks.has_device_assertions = lambda tensor: True


def operations() -> dict[str, Action]:
    """Returns calls of the operations in the CIFAR-10 settings, on an image for which PyTorch's own work is little."""
    layer_of = encoder(CIFAR10)
    atoms, (norms, dead_zone, _) = layer_of.atoms, layer_of.levels()
    x = images(CIFAR10)[:1, :, :8, :8].contiguous()
    seed, ids = torch.tensor(1), torch.arange(1)
    raw = torch.ops.neuroae
    index, value, projection, count = torch.ops.neuroae_reference.encode(
        x, atoms, norms, dead_zone, seed, ids, 2, 50, 0, 0.95, True, True
    )
    weight = torch.randn(500, 300, 4, 4).contiguous(memory_format=torch.channels_last)
    bias, geometry = torch.zeros(300), ([2, 2], [0, 0])
    output = torch.randn(1, 300, 8, 8).contiguous(memory_format=torch.channels_last)
    grad_code = torch.randn(*count.shape, 500)
    return {
        "torch.add": lambda: torch.add(norms, dead_zone),
        "encode": lambda: raw.encode(x, atoms, norms, dead_zone, seed, ids, 2, 50, 0, 0.95, True, True),
        "select": lambda: raw.select(x, atoms, 2, 50),
        "draw": lambda: raw.draw(index, projection, norms, dead_zone, seed, ids, 0, 8, 0.95, True, True),
        "encode_backward": lambda: raw.encode_backward(
            value, index, projection, count, atoms, norms, dead_zone, 8, 8, 2, 1, "smooth", 0.25, True, True
        ),
        "selection_backward": lambda: raw.selection_backward(
            grad_code, x, atoms, norms, dead_zone, 2, 50, 0.02, True, True
        ),
        "conv_transpose": lambda: raw.conv_transpose(index, value, count, weight, bias, *geometry, [0, 0], True),
        "conv_transpose_backward_value": lambda: raw.conv_transpose_backward_value(
            output, None, index, count, weight, *geometry
        ),
        "conv_transpose_backward_weight": lambda: raw.conv_transpose_backward_weight(
            output, None, index, value, count, weight, *geometry
        ),
    }


def count_launches(action: Action) -> int:
    """Returns how many kernels a call launches."""
    launches, run = [], Launch.run
    Launch.run = lambda launch: launches.append(launch)  # type: ignore[method-assign]
    try:
        action()
    finally:
        Launch.run = run  # type: ignore[method-assign]
    return len(launches)


def microseconds(action: Callable[[], object], calls: int, blocks: int) -> tuple[float, float]:
    """Returns the least and the median processor time of a call over blocks of calls."""
    action()
    times = []
    for _ in range(blocks):
        start = time.thread_time()
        for _ in range(calls):
            action()
        times.append((time.thread_time() - start) / calls * 1e6)
    return min(times), statistics.median(times)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.host_time", description="Host time of the GPU operations")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls in a block (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="blocks of calls (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pretend_to_have_a_gpu()
    print(f"microseconds a call, least and median of {options.blocks} blocks of {options.calls} calls; aim {AIM}")
    with torch.no_grad():
        for name, action in operations().items():
            least, median = microseconds(action, options.calls, options.blocks)
            launches = 0 if name.startswith("torch.") else count_launches(action)
            print(f"{name:32} {least:7.1f} {median:7.1f}   {launches} launches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
