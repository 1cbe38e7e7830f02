"""Times of the Triton kernels on a GPU beside what they should cost, and a sweep of tiles and warps.

    python -m bench.gpu_kernels --floors budgets.json     # of python -m bench.gpu_budgets --json budgets.json
    python -m bench.gpu_kernels --sweep
    python -m bench.gpu_kernels --device cpu              # a stand-in: a driver that launches nothing

Kernels run on the code of drawn images in the settings of ``bench.gpu_launches``, each many times in a row. The sweep
changes one size of ``kernels/triton/tiles.py`` or the number of warps at a time, and prints the fastest choice.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.gpu_launches import SETTINGS, Setting, Workload, launches
from bench.host_time import pretend_to_have_a_gpu
from bench.measure import Action
from neuroae.kernels import reference
from neuroae.kernels.triton import tiles
from neuroae.kernels.triton.launch import Launch
from neuroae.kernels.triton.occurrences import group_by_atom

CALLS, BLOCKS = 20, 7
# The sizes that the sweep tries, by their names in tiles.py.
SIZES = {"PATCH_TILE": (4, 8, 16), "SURVIVOR_TILE": (2, 4, 8), "PIXEL_TILE": (16, 32, 64)}
# These add to their tensors, so they are timed together, from zeros.
GROUPING = ("conv_transpose_backward_weight: count", "conv_transpose_backward_weight: place")
MOST_WARPS = 16

Clock = Callable[[Action], float]


def drawn_workload(setting: Setting, device: str, batch: int) -> Workload:
    """Returns images of noise, a random dictionary, and their code of one realization."""
    generator = torch.Generator().manual_seed(0)
    size = (setting.image_size, setting.image_size)
    images = torch.rand(batch, setting.channels, *size, generator=generator)
    atoms = torch.randn(setting.num_atoms, setting.channels, setting.patch, setting.patch, generator=generator)
    atoms = atoms / atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    norms = atoms.abs().sum((1, 2, 3))
    levels = (norms, norms * (3.0 * 8 / 255))
    randomness = (torch.zeros(1, dtype=torch.int64), torch.arange(batch))
    images, atoms, *rest = (tensor.to(device) for tensor in (images, atoms, *levels, *randomness))
    levels, randomness = (rest[0], rest[1]), (rest[2], rest[3])
    selection = reference.select(images, atoms, setting.stride, setting.top_t)
    code = reference.draw(*selection, *levels, *randomness, 0, 1, 0.95, True, True)
    return Workload(setting, images, atoms, levels, randomness, selection, code)


def gpu_clock(action: Action) -> float:
    """Returns the median time of an action on the GPU, in microseconds."""
    action()
    times = []
    for _ in range(BLOCKS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            action()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / CALLS * 1e3)
    return statistics.median(times)


def host_clock(action: Action) -> float:
    """Returns the host's time of an action whose kernels do nothing, in microseconds."""
    action()
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e6


def print_times(workloads: dict[str, Workload], clock: Clock, floors: dict[tuple[str, str], float]) -> None:
    """Prints each kernel's time, its least time where it is known, and the ratio."""
    print(f"{'setting':11} {'kernel':45} {'measured us':>12} {'least us':>9} ratio")
    for setting, workload in workloads.items():
        actions = {name: launch.run for name, launch in launches(workload) if name not in GROUPING}
        for name, action in (actions | {"survivors grouped by atom": grouping(workload)}).items():
            measured, least = clock(action), floors.get((setting, name))
            beside = "" if not least else f"{least:9.1f} {measured / least:5.1f}"
            print(f"{setting:11} {name:45} {measured:12.1f} {beside}", flush=True)


def grouping(workload: Workload) -> Action:
    """Returns the grouping before the weight gradient: a fill, two kernels, and PyTorch's running sum between them."""
    (index, value, _, count), (_, kernel, step) = workload.code, workload.setting.layer
    size = [(patches - 1) * step + kernel for patches in index.shape[1:3]]
    num_atoms = workload.setting.num_atoms
    return lambda: group_by_atom(index, value, count, num_atoms, size, [step, step], [0, 0])


def read_floors(file: Path | None, target: str) -> dict[tuple[str, str], float]:
    """Returns the least times of ``bench.gpu_budgets`` by setting and kernel, in microseconds."""
    if file is None or not file.exists():
        return {}
    rows = json.loads(file.read_text())
    return {
        (row["setting"], row["kernel"]): row["microseconds"]
        for row in rows
        if row["target"] == target and isinstance(row.get("microseconds"), int | float)
    }


@contextmanager
def size_of(name: str, number: int) -> Iterator[None]:
    """Changes a size in ``tiles`` for the launches that are prepared meanwhile."""
    before = getattr(tiles, name)
    setattr(tiles, name, number)
    try:
        yield
    finally:
        setattr(tiles, name, before)


def choices(workload: Workload) -> Iterator[tuple[str, str, Launch]]:
    """Yields the kernels with each choice: kernel, choice, launch. The present choice has no name."""
    present = {name: launch for name, launch in launches(workload) if name not in GROUPING}
    for name, launch in present.items():
        yield name, "", launch
        for warps in (launch.num_warps // 2, launch.num_warps * 2):
            if 1 <= warps <= MOST_WARPS:
                yield name, f"{warps} warps", dataclasses.replace(launch, num_warps=warps)
    for size, numbers in SIZES.items():
        for number in numbers:
            if number == getattr(tiles, size, number):
                continue
            with size_of(size, number):
                for name, launch in launches(workload):
                    if name in present and dict(launch.constants) != dict(present[name].constants):
                        yield name, f"{size} {number}", launch


def sweep(workload: Workload, clock: Clock) -> None:
    """Times all choices, and prints for each kernel the present choice and the fastest."""
    times: dict[str, dict[str, float]] = {}
    for name, choice, launch in choices(workload):
        try:
            times.setdefault(name, {})[choice] = clock(launch.run)
        except Exception as error:  # a choice may take more than the GPU has
            print(f"{name}, {choice}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
    for name, by_choice in times.items():
        winner = min(by_choice, key=lambda choice: by_choice[choice])
        shown = ", ".join(f"{choice or 'present'} {time:.1f}" for choice, time in by_choice.items())
        print(f"{name}: {winner or 'the present choice'} wins: {shown}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu_kernels", description="Times of the GPU kernels")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=("cifar10", "imagenette"))
    parser.add_argument("--batch", type=int, default=64, help="images (default: %(default)s)")
    parser.add_argument("--floors", type=Path, help="what bench.gpu_budgets --json has written")
    parser.add_argument("--target", default="sm_90", help="the GPU of the floors (default: %(default)s)")
    parser.add_argument("--sweep", action="store_true", help="sweep tiles and warps instead")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        pretend_to_have_a_gpu()
    clock = gpu_clock if options.device == "cuda" else host_clock
    workloads = {name: drawn_workload(SETTINGS[name], options.device, options.batch) for name in options.settings}
    if options.sweep:
        for name, workload in workloads.items():
            print(f"== {name}, {options.batch} images, microseconds")
            sweep(workload, clock)
    else:
        print_times(workloads, clock, read_floors(options.floors, options.target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
