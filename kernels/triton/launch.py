"""A launch of a kernel."""

import contextlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class Launch:
    """One launch of a kernel. ``bench/gpu_budgets.py`` compiles launches without a GPU.

    Attributes:
        kernel: The ``triton.jit`` function. Its numbers must not be specialized, so that kernels differ in the dtypes
            and the alignment of tensors and in the constants only.
        programs: The number of programs, up to 2^31 - 1; all are on one axis.
        arguments: Tensors (contiguous in the memory order that the kernel expects) and numbers, by parameter.
        constants: The compile-time parameters, the last of the kernel.
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
        """Launches the kernel on the device of the tensors, in its current stream. Does nothing without programs.

        Triton's own launch looks at every argument to find the compiled kernel, which takes longer than the kernels of
        a small batch. Here the kernel comes from ``COMPILED``, if all tensors are aligned as new tensors are.
        """
        if self.programs == 0:
            return
        tensors = [value for value in self.arguments.values() if type(value) is not int and type(value) is not float]
        key = self.key(tensors)
        if key in COMPILED:
            compiled, in_order = COMPILED[key]
            with on_device(tensors[0].device):
                compiled[(self.programs, 1, 1)](*in_order({**self.arguments, **self.constants}))
            return
        with on_device(self.device()):
            compiled = self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)
        if key is not None and compiled is not None:
            COMPILED[key] = compiled, operator.itemgetter(*self.kernel.arg_names)

    def key(self, tensors: list[Tensor]) -> tuple[Any, ...] | None:
        """Returns what a compiled kernel depends on; None if a tensor is not aligned to 16 bytes."""
        addresses = 0
        for tensor in tensors:
            addresses |= tensor.data_ptr()
        if addresses % ALIGNMENT:
            return None
        dtypes = [tensor.dtype for tensor in tensors]
        return (id(self.kernel), tensors[0].device, self.num_warps, self.num_stages, *dtypes, *self.constants.values())


# Triton compiles another kernel for tensors that are aligned to fewer bytes.
ALIGNMENT = 16
# Compiled kernels by ``Launch.key``, each with the function that puts named parameters in order. Kernels of the
# interpreter are not compiled.
COMPILED: dict[tuple[Any, ...] | None, Any] = {}


def on_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a CUDA device is the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)
