"""Registers and memory that the Triton kernels need, from compiling them ahead of time, without a GPU.

    python -m bench.gpu_budgets                       # sm_80 and sm_90
    python -m bench.gpu_budgets --targets sm_86       # any of TARGETS
    python -m bench.gpu_budgets --all

For each setting the backend's functions prepare the launches from meta tensors, and Triton's own binder turns each
into a signature and constants, so the compiled kernels are those that would run. A kernel is within its budget if it
spills nothing, takes at most 101,376 bytes of shared memory (the limit of sm_86 and sm_89; 65,536 on gfx942), and has
at least 8 warps resident on an SM. The command prints a table, and fails if a kernel is over its budget.

Where ``bench/gpu_trips.py`` has counted the loops, the kernel is disassembled too. The table then shows its warp
instructions a patch, barriers and divisions inside its loops, and the longest of the times that issue slots,
multiply-adds, memory and the L2 cache imply for the launch on an A100 and an H100. No kernel runs. Barriers,
divisions, and the instructions of some kernels have a budget too.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from torch import Tensor
from tqdm.auto import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from bench.gpu_code import RATES, Cost, MachineCode, Trips, cost, disassemble
from bench.gpu_launches import SETTINGS, Workload, launches, meta_workload
from neuroae.kernels.triton import tiles
from neuroae.kernels.triton.launch import Launch

TRIPS_FILE = Path(__file__).with_name("gpu_trips.json")
GPUS = {"sm_80": "A100", "sm_90": "H100"}
LEAST_WARPS = 8
ENOUGH_WARPS = 16
# The most warp instructions a patch in the CIFAR-10 setting on sm_90.
MOST_INSTRUCTIONS = {
    "encode": 2200,
    "select": 1800,
    "selection_backward: cut": 2000,
    "selection_backward: back projection": 2400,
}
# The most in the loops of a kernel; see ``Work``.
MOST_BARRIERS = 0
MOST_DIVISIONS = 0


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
class Work:
    """What a kernel's machine code does.

    Attributes:
        loop_barriers: Block barriers inside loops, without those around the tiles of a product. A program of one warp
            has none, since no warp waits for another.
        division_calls: Calls, and conversions from integer to float, inside loops.
        cost: Of the whole launch.
        patches: Patches of the launch.
    """

    loop_barriers: int
    division_calls: int
    cost: Cost
    patches: int

    def warp_instructions(self) -> float:
        """Returns the warp instructions a patch."""
        return self.cost.warp_instructions / self.patches

    def faults(self, most_instructions: float) -> list[str]:
        """Returns the reasons why the machine code is over its budget."""
        faults = []
        if self.warp_instructions() > most_instructions:
            faults.append(f"{self.warp_instructions():.0f} instructions a patch, more than {most_instructions}")
        if self.loop_barriers > MOST_BARRIERS:
            faults.append(f"{self.loop_barriers} barriers in loops, more than {MOST_BARRIERS}")
        if self.division_calls > MOST_DIVISIONS:
            faults.append(f"{self.division_calls} divisions in loops, more than {MOST_DIVISIONS}")
        return faults


@dataclass(frozen=True)
class Row:
    """One compiled kernel.

    Attributes:
        spill: Bytes of stack and local memory; on gfx942 spilled registers plus bytes of private memory.
        resident: Warps resident on an SM; None on gfx942.
        limit: What limits the resident warps.
        work: What the machine code does; None on gfx942, and for settings whose loops were not counted.
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
    work: "Work | None" = None

    def faults(self) -> list[str]:
        """Returns the reasons why the kernel is over its budget."""
        faults = []
        if self.spill:
            faults.append(f"spills {self.spill}")
        if self.shared > SHARED_LIMIT[self.target]:
            faults.append(f"{self.shared} bytes of shared memory, more than {SHARED_LIMIT[self.target]}")
        if self.resident is not None and self.resident < LEAST_WARPS:
            faults.append(f"{self.resident} resident warps, fewer than {LEAST_WARPS}")
        is_limited = (self.target, self.setting) == ("sm_90", "cifar10")
        if self.work is not None:
            most_instructions = MOST_INSTRUCTIONS.get(self.kernel, math.inf) if is_limited else math.inf
            faults += self.work.faults(most_instructions)
        elif is_limited:
            faults.append("bench/gpu_trips.py has not counted its loops")
        return faults

    def note(self) -> str:
        if self.faults():
            return "OVER BUDGET: " + "; ".join(self.faults())
        return self.limit if self.resident is not None and self.resident < ENOUGH_WARPS else ""


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
    workload = meta_workload(SETTINGS[setting])
    trips = json.loads(TRIPS_FILE.read_text()).get(setting, {})
    with tiles_of(target):
        return [
            measure_launch(target, setting, name, launch, workload, trips.get(name))
            for name, launch in launches(workload)
        ]


@contextmanager
def tiles_of(target: str) -> Iterator[None]:
    """Chooses tiles as a machine with the target would, in place of this machine's."""
    before = tiles.THREADS, tiles.REGISTER_ATOMS
    tiles.THREADS = 64 if target == "gfx942" else tiles.WARP
    tiles.REGISTER_ATOMS = tiles.register_atoms(tiles.THREADS, is_blackwell=target == "sm_100")
    try:
        yield
    finally:
        tiles.THREADS, tiles.REGISTER_ATOMS = before


def measure_launch(
    target: str, setting: str, name: str, launch: Launch, workload: Workload, trips: Trips | None
) -> Row:
    """Compiles one kernel; without trips its machine code is not measured."""
    compiled = compile_launch(launch, target)
    shared = compiled.metadata.shared
    work = None
    if target == "gfx942":
        registers, spill = amd_usage(compiled.asm["amdgcn"])
        resident, limit = None, ""
    else:
        registers, spill = nvidia_usage(compiled.asm["cubin"])
        resident, limit = MULTIPROCESSORS[target].resident_warps(launch.num_warps, registers, shared)
        if trips is not None:
            work = measure_work(disassemble(compiled.asm["cubin"]), launch, trips, workload)
    return Row(target, setting, name, launch.num_warps, registers, spill, shared, resident, limit, work)


def measure_work(code: MachineCode, launch: Launch, trips: Trips, workload: Workload) -> Work:
    tensors = {id(value): value for value in launch.arguments.values() if isinstance(value, Tensor)}
    moved_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    total = cost(code, trips, launch.programs * launch.num_warps, moved_bytes)
    barriers = code.loop_barriers() if launch.num_warps > 1 else 0
    return Work(barriers, code.division_calls(), total, workload.code[3].numel())


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
    head = ("target", "setting", "kernel", "warps", "registers", "spill", "shared", "resident warps")
    head += ("instructions a patch", "barriers", "divisions", "bound", "note")
    lines = [head]
    for row in rows:
        work = ["-"] * 4
        if row.work is not None:
            counts = (row.work.loop_barriers, row.work.division_calls)
            times = " / ".join(f"{gpu} {time:.0f} us {bound}" for gpu, (bound, time) in bounds(row.work).items())
            work = [f"{row.work.warp_instructions():.0f}", *map(str, counts), times]
        lines.append(
            (
                row.target,
                row.setting,
                row.kernel,
                *(str(number) for number in (row.num_warps, row.registers, row.spill, row.shared)),
                "-" if row.resident is None else str(row.resident),
                *work,
                row.note(),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def bounds(work: Work) -> dict[str, tuple[str, float]]:
    """Returns, for each GPU, the resource that implies the longest time, and that time in microseconds."""
    times = {gpu: work.cost.microseconds(gpu) for gpu in RATES}
    return {gpu: max(table.items(), key=lambda item: item[1]) for gpu, table in times.items()}


def json_row(row: Row) -> dict[str, Any]:
    """Returns a row of the JSON file; numbers that are not known are null. Times are those of the whole launch."""
    work = row.work
    gpu = GPUS.get(row.target)
    bound, microseconds = bounds(work)[gpu] if work is not None and gpu is not None else (None, None)
    return {
        "target": row.target,
        "setting": row.setting,
        "kernel": row.kernel,
        "registers": row.registers,
        "spill": row.spill,
        "shared": row.shared,
        "resident_warps": row.resident,
        "loop_barriers": work and work.loop_barriers,
        "division_calls": work and work.division_calls,
        "warp_instructions": work and work.warp_instructions(),
        "memory_instructions": work and work.cost.memory_instructions / work.patches,
        "bound": bound,
        "microseconds": microseconds,
        "microseconds_by_resource": work and {gpu: work.cost.microseconds(gpu) for gpu in RATES},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu_budgets", description="GPU budgets of the Triton kernels")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--targets", nargs="+", choices=TARGETS, default=QUICK_TARGETS, help="default: %(default)s")
    group.add_argument("--all", action="store_true", help=f"all of {', '.join(TARGETS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    options = parser.parse_args(arguments)
    rows = measure_all(TARGETS if options.all else tuple(options.targets))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([json_row(row) for row in rows], indent=1) + "\n")
    faults = [row for row in rows if row.faults()]
    print(f"{len(rows)} kernels compiled, {len(faults)} over budget")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
