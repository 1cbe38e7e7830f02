"""A kernel with everything that its launch takes: run here, and compiled without a GPU by ``bench/gpu_budgets.py``."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: the ``triton.jit`` function.
        programs: how many programs run; they are numbered along one axis, whose limit is 2^31 - 1.
        arguments: tensors (contiguous in the order that the kernel expects) and numbers, by parameter.
        constants: the compile-time parameters.
        num_warps: warps a program.
        num_stages: depth of software pipelining of the kernel's loops.
    """

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """Of the compiler. Multiply-adds are fused; Triton versions differ in their default."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    def device(self) -> torch.device:
        """Where all tensors are; a kernel would read those of another device before they are written, or crash."""
        devices = {name: value.device for name, value in self.arguments.items() if isinstance(value, Tensor)}
        if len(set(devices.values())) > 1:
            found = ", ".join(f"{name} on {device}" for name, device in devices.items())
            raise ValueError(f"expected all tensors on one device, found {found}")
        return next(iter(devices.values()))

    def run(self) -> None:
        """Launches on the device of the tensors, in its current stream. Without programs nothing happens."""
        if self.programs == 0:
            return
        device = self.device()
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)
