"""A launch of a kernel."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel. ``bench/gpu_budgets.py`` compiles launches without a GPU.

    Attributes:
        kernel: The ``triton.jit`` function.
        programs: The number of programs, up to 2^31 - 1; all are on one axis.
        arguments: Tensors (contiguous in the memory order that the kernel expects) and numbers, by parameter.
        constants: The compile-time parameters.
        num_warps: Warps in a program.
        num_stages: Depth of the software pipelining of loops.
    """

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options.

        Multiply-adds are fused; versions of Triton differ in their default. ``debug`` turns device-side assertions on;
        without ``sanitize_overflow=False`` it would also check every integer operation for overflow.
        """
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
            "debug": True,
            "sanitize_overflow": False,
        }

    def device(self) -> torch.device:
        """Returns the device of all tensors.

        Raises:
            ValueError: They are on several devices. The kernel would crash, or read tensors before they are written.
        """
        devices = {name: value.device for name, value in self.arguments.items() if isinstance(value, Tensor)}
        if len(set(devices.values())) > 1:
            places = ", ".join(f"{name} on {device}" for name, device in devices.items())
            raise ValueError(f"a kernel has {places}, expected all tensors on one device")
        return next(iter(devices.values()))

    def run(self) -> None:
        """Launches the kernel on the device of the tensors, in its current stream. Does nothing without programs."""
        if self.programs == 0:
            return
        device = self.device()
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)
