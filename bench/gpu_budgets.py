"""Registers and memory that the Triton kernels need, from compiling them ahead of time, without a GPU.

    python -m bench.gpu_budgets                       # sm_80 and sm_90
    python -m bench.gpu_budgets --targets sm_86       # any of TARGETS
    python -m bench.gpu_budgets --all

For each setting the backend's functions prepare the launches from meta tensors, and Triton's own binder turns each
into a signature and constants, so the compiled kernels are those that would run. A kernel is within its budget if it
spills nothing, takes at most 101,376 bytes of shared memory (the limit of sm_86 and sm_89; 65,536 on gfx942), and has
at least 8 warps resident on an SM. The command prints a table, and fails if a kernel is over its budget.
"""

import argparse
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from tqdm.auto import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from neuroae.kernels.ops import empty_code
from neuroae.kernels.triton.conv_transpose import conv_transpose_launch, value_launch, weight_launch
from neuroae.kernels.triton.draw import draw_launch
from neuroae.kernels.triton.encode import encode_launch
from neuroae.kernels.triton.encode_backward import encode_backward_launch
from neuroae.kernels.triton.launch import Launch
from neuroae.kernels.triton.select import select_launches
from neuroae.kernels.triton.selection_backward import selection_backward_launches
from neuroae.kernels.triton.tiles import fits_registers

LEAST_WARPS = 8
ENOUGH_WARPS = 16


@dataclass(frozen=True)
class Setting:
    """An encoder and the first layer of its decoder (output channels, kernel, stride)."""

    channels: int
    image_size: int
    patch: int
    stride: int
    num_atoms: int
    top_t: int
    layer: tuple[int, int, int]


SETTINGS = {
    "cifar10": Setting(3, 32, patch=4, stride=2, num_atoms=500, top_t=50, layer=(300, 4, 2)),
    "imagenette": Setting(3, 160, patch=8, stride=4, num_atoms=1000, top_t=50, layer=(300, 3, 1)),
    "odd": Setting(1, 8, patch=3, stride=2, num_atoms=7, top_t=1, layer=(5, 3, 3)),
    "large": Setting(3, 160, patch=8, stride=4, num_atoms=5000, top_t=100, layer=(300, 3, 1)),
}
BATCH = 64
REALIZATIONS = 8


@dataclass(frozen=True)
class Multiprocessor:
    """Resources of one SM (CUDA C++ Programming Guide, table of technical specifications)."""

    shared: int
    warps: int
    programs: int
    registers: int = 65_536
    partitions: int = 4
    shared_reserved: int = 1024

    def resident_warps(self, num_warps: int, registers: int, shared: int) -> tuple[int, str]:
        """Returns how many warps are resident at once, in programs of ``num_warps``, and what limits them."""
        warp_registers = math.ceil(registers * 32 / 256) * 256
        by_registers = self.registers // self.partitions // warp_registers * self.partitions // num_warps
        by_shared = self.shared // (math.ceil(shared / 128) * 128 + self.shared_reserved)
        programs, limit = min(
            (by_registers, f"{registers} registers a thread"),
            (by_shared, f"{shared} bytes of shared memory"),
            (self.warps // num_warps, f"{self.warps} warps an SM"),
            (self.programs, f"{self.programs} programs an SM"),
        )
        return programs * num_warps, limit


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(shared=167_936, warps=64, programs=32),
    "sm_86": Multiprocessor(shared=102_400, warps=48, programs=16),
    "sm_89": Multiprocessor(shared=102_400, warps=48, programs=24),
    "sm_90": Multiprocessor(shared=233_472, warps=64, programs=32),
    "sm_100": Multiprocessor(shared=233_472, warps=64, programs=32),
}
TARGETS = (*MULTIPROCESSORS, "gfx942")
SHARED_LIMIT = dict.fromkeys(MULTIPROCESSORS, 101_376) | {"gfx942": 65_536}
QUICK_TARGETS = ("sm_80", "sm_90")


@dataclass(frozen=True)
class Row:
    """One compiled kernel.

    Attributes:
        spill: Bytes of stack and local memory; on gfx942 spilled registers plus bytes of private memory.
        resident: Warps resident on an SM; None on gfx942.
        limit: What limits the resident warps.
    """

    target: str
    setting: str
    kernel: str
    num_warps: int
    registers: int
    spill: int
    shared: int
    resident: int | None
    limit: str

    def faults(self) -> list[str]:
        """Returns the reasons why the kernel is over its budget."""
        faults = []
        if self.spill:
            faults.append(f"spills {self.spill}")
        if self.shared > SHARED_LIMIT[self.target]:
            faults.append(f"{self.shared} bytes of shared memory, more than {SHARED_LIMIT[self.target]}")
        if self.resident is not None and self.resident < LEAST_WARPS:
            faults.append(f"{self.resident} resident warps, fewer than {LEAST_WARPS}")
        return faults

    def note(self) -> str:
        if self.faults():
            return "OVER BUDGET: " + "; ".join(self.faults())
        return self.limit if self.resident is not None and self.resident < ENOUGH_WARPS else ""


def launches(setting: Setting) -> Iterator[tuple[str, Launch]]:
    """Yields all kernels that the backend launches in this setting, by name."""
    images = meta(BATCH, setting.channels, setting.image_size, setting.image_size)
    atoms = meta(setting.num_atoms, setting.channels, setting.patch, setting.patch)
    levels = meta(setting.num_atoms), meta(setting.num_atoms)
    randomness = meta(1, dtype=torch.int64), meta(BATCH, dtype=torch.int64)
    side = (setting.image_size - setting.patch) // setting.stride + 1
    index, value, projection, count = code = empty_code(images, (BATCH, side, side, setting.top_t))
    draws = empty_code(images, (REALIZATIONS * BATCH, side, side, setting.top_t))

    selection_launches = select_launches(images, atoms, index, projection, setting.stride)
    if fits_registers(setting.num_atoms):
        yield (
            "encode",
            encode_launch(
                images, atoms, levels, randomness, code, setting.stride, 0, 0.95, quantize=True, signed=True
            ),
        )
        yield "select", next(selection_launches)
    else:
        yield "select: projections", next(selection_launches)
        yield "select: search", next(selection_launches)
    yield (
        "draw",
        draw_launch((index, projection), levels, randomness, draws, 0, REALIZATIONS, 0.95, quantize=True, signed=True),
    )
    for surrogate in ("identity", "smooth"):
        yield (
            f"encode_backward {surrogate}",
            encode_backward_launch(
                (value, index, projection), (atoms, *levels), images, setting.stride, surrogate, 0.25, True, True
            ),
        )
    grad_code = meta(BATCH, side, side, setting.num_atoms)
    *_, cut, back_projection, fold = selection_backward_launches(
        grad_code, images, (atoms, *levels), images, setting.stride, setting.top_t, 0.02, quantize=True, signed=True
    )
    yield "selection_backward: cut", cut
    yield "selection_backward: back projection", back_projection
    yield "selection_backward: fold", fold
    for dtype in (torch.float32, torch.bfloat16):
        yield from layer_launches(setting, (index, value, count), dtype)


def layer_launches(
    setting: Setting, code: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, Launch]]:
    """Yields the kernels of the decoder's first layer with ReLU, forward and backward."""
    index, value, count = code
    channels, kernel, step = setting.layer
    stride, padding = [step, step], [0, 0]
    weight = meta(setting.num_atoms, channels, kernel, kernel, dtype=dtype)
    size = (index.shape[1] - 1) * step + kernel
    output = meta(BATCH, channels, size, size, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    yield (
        f"conv_transpose {name}",
        conv_transpose_launch(code, weight, meta(channels, dtype=dtype), output, stride, padding, relu=True),
    )
    yield (
        f"conv_transpose_backward_value {name}",
        value_launch(output, output, index, count, weight, value, stride, padding),
    )
    yield (
        f"conv_transpose_backward_weight {name}",
        weight_launch(output, output, index, value, weight.float(), stride, padding),
    )


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns a tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def compile_launch(launch: Launch, target: str) -> Any:
    """Compiles a kernel as Triton's just-in-time compiler would on this target."""
    gpu = GPUTarget("hip", target, 64) if target.startswith("gfx") else GPUTarget("cuda", int(target[3:]), 32)
    backend = make_backend(gpu)
    kernel = launch.kernel
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    arguments, specialization, bound = bind(**launch.arguments, **launch.constants, **launch.options)
    options, signature, constants, attributes = kernel._pack_args(backend, bound, arguments, specialization, bound)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=gpu, options=options.__dict__)


def measure(target: str, setting: str) -> list[Row]:
    """Compiles the kernels of one setting for one target."""
    rows = []
    for name, launch in launches(SETTINGS[setting]):
        compiled = compile_launch(launch, target)
        shared = compiled.metadata.shared
        if target == "gfx942":
            registers, spill = amd_usage(compiled.asm["amdgcn"])
            resident, limit = None, ""
        else:
            registers, spill = nvidia_usage(compiled.asm["cubin"])
            resident, limit = MULTIPROCESSORS[target].resident_warps(launch.num_warps, registers, shared)
        rows.append(Row(target, setting, name, launch.num_warps, registers, spill, shared, resident, limit))
    return rows


def nvidia_usage(cubin: bytes) -> tuple[int, int]:
    """Returns registers per thread, and bytes of stack and local memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def amd_usage(assembly: str) -> tuple[int, int]:
    """Returns vector registers per thread, and spilled registers plus bytes of private memory."""
    names = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size")
    usage = {}
    for name in names:
        match = re.search(rf"\.{name}:\s*(\d+)", assembly)
        assert match, f"the metadata has no {name}"
        usage[name] = int(match[1])
    return usage.pop("vgpr_count"), sum(usage.values())


def measure_all(targets: tuple[str, ...]) -> list[Row]:
    """Compiles the kernels of all settings for these targets, in parallel processes."""
    jobs = [(target, setting) for target in targets for setting in SETTINGS]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        tables = pool.map(measure, *zip(*jobs, strict=True))
        return [row for rows in tqdm(tables, "compiling", len(jobs), unit="table") for row in rows]


def table(rows: list[Row]) -> str:
    head = ("target", "setting", "kernel", "warps", "registers", "spill", "shared", "resident warps", "note")
    lines = [head] + [
        (
            row.target,
            row.setting,
            row.kernel,
            *(str(number) for number in (row.num_warps, row.registers, row.spill, row.shared)),
            "-" if row.resident is None else str(row.resident),
            row.note(),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu_budgets", description="GPU budgets of the Triton kernels")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--targets", nargs="+", choices=TARGETS, default=QUICK_TARGETS, help="default: %(default)s")
    group.add_argument("--all", action="store_true", help=f"all of {', '.join(TARGETS)}")
    options = parser.parse_args(arguments)
    rows = measure_all(TARGETS if options.all else tuple(options.targets))
    print(table(rows))
    faults = [row for row in rows if row.faults()]
    print(f"{len(rows)} kernels compiled, {len(faults)} over budget")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
