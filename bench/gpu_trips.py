"""Counts how often the loops of the Triton kernels run on real patches, in Triton's interpreter.

    TRITON_INTERPRET=1 python -m bench.gpu_trips --data DIR          # writes bench/gpu_trips.json
    TRITON_INTERPRET=1 python -m bench.gpu_trips --kernels encode    # replaces the numbers of these kernels only
    TRITON_INTERPRET=1 python -m bench.gpu_trips --settings imagenette --data DIR --dictionary FILE

Each kernel runs some of its programs on the data of the setting, if DIR holds it: the test images of CIFAR-10 with the
dictionary of the shipped model, or Imagenette's with that of FILE. Else it runs on parts of scikit-learn's sample
photographs. The file holds, for each setting, kernel, loop and branch, the executions of its body in a program,
averaged over the programs.
"""

import argparse
import ast
import dataclasses
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from triton.runtime.interpreter import interpreter_builder

from bench.gpu_code import KERNELS, source_blocks
from bench.gpu_launches import BATCH, SETTINGS, Setting, Workload, launches
from bench.settings import crops
from neuroae import Defense
from neuroae.data import load_dataset
from neuroae.dictionary import load_dictionary
from neuroae.kernels import is_interpreting, reference
from neuroae.kernels.triton.launch import Launch

PROGRAMS = 12
COUNTED = ("cifar10",)
FILE = Path(__file__).with_suffix(".json")


def real_workload(name: str, data: Path | None, dictionary: Path | None) -> Workload:
    """Returns images, a dictionary, and their code for one realization."""
    setting = SETTINGS[name]
    images, atoms = pictures(name, setting, data, dictionary)
    norms = atoms.abs().sum((1, 2, 3))
    levels = (norms, norms * (3.0 * 8 / 255))
    randomness = (torch.zeros(1, dtype=torch.int64), torch.arange(len(images)))
    selection = reference.select(images, atoms, setting.stride, setting.top_t)
    code = reference.draw(*selection, *levels, *randomness, 0, 1, 0.95, True, True)
    return Workload(setting, images, atoms, levels, randomness, selection, code)


def pictures(name: str, setting: Setting, data: Path | None, dictionary: Path | None) -> tuple[Tensor, Tensor]:
    """Returns images in [0, 1] and atoms with norm 1."""
    if name == "imagenette" and data is not None and dictionary is not None:
        return load_dataset("imagenette", "test", data).limited(BATCH).pixels(), load_dictionary(dictionary)
    if name == "cifar10" and data is not None:
        images = load_dataset("cifar10", "test", data).limited(BATCH).pixels()
        return images, Defense.from_pretrained("cifar10").encoder.atoms
    generator = torch.Generator().manual_seed(0)
    images = crops(setting.image_size, BATCH, generator)[:, : setting.channels].contiguous()
    atoms = crops(setting.patch, setting.num_atoms, generator)[:, : setting.channels]
    atoms = atoms - atoms.mean((1, 2, 3), keepdim=True) + 1e-3
    return images, atoms / atoms.square().sum((1, 2, 3), keepdim=True).sqrt()


def run_programs(launch: Launch) -> dict[str, dict[int, float]]:
    """Runs programs of a launch, spread evenly, and returns the events of each line in a program, by file."""
    lines: defaultdict[str, Counter[int]] = defaultdict(Counter)
    folder = os.path.dirname(launch.kernel.rewriter._get_jit_fn_file_line()[0]) + os.sep

    def trace(frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(folder):
            return None
        if event == "line":
            lines[file[len(folder) :]][frame.f_lineno] += 1
        return trace

    programs = min(launch.programs, PROGRAMS)
    set_place = interpreter_builder.set_grid_idx

    def set_spread_place(x: int, *others: int) -> None:
        interpreter_builder.grid_idx = (x * launch.programs // programs, *others)

    interpreter_builder.set_grid_idx = set_spread_place
    sys.settrace(trace)
    try:
        dataclasses.replace(launch, programs=programs).run()
    finally:
        sys.settrace(None)
        interpreter_builder.set_grid_idx = set_place
    return {file: {line: n / programs for line, n in counts.items()} for file, counts in lines.items()}


def body_runs(block: ast.For | ast.While | ast.If, lines: Mapping[int, float]) -> float:
    """Returns how often the body of a loop or branch runs, from the events of the lines of its file.

    A statement over several lines has several events, so a statement on one line is counted. The line of an inner
    loop's header has one event for each run of the inner body, and one when the inner loop ends.
    """
    for statement in block.body:
        if isinstance(statement, ast.For | ast.While):
            return lines.get(statement.lineno, 0.0) - body_runs(statement, lines)
        if statement.lineno == statement.end_lineno:
            return lines.get(statement.lineno, 0.0)
    raise ValueError(f"the block at line {block.lineno} has no statement whose runs can be counted")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m bench.gpu_trips", description="Trips of the kernels' loops")
    parser.add_argument("--data", type=Path, help="the folder with cifar-10-batches-bin or imagenette2-160")
    parser.add_argument("--dictionary", type=Path, metavar="FILE", help="the dictionary for Imagenette's images")
    parser.add_argument("--kernels", nargs="+", metavar="WORD", help="kernels whose name starts with one of these")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=COUNTED, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if not is_interpreting():
        parser.error("set TRITON_INTERPRET=1: kernels run in Triton's interpreter")
    table = json.loads(FILE.read_text()) if FILE.exists() else {}
    for setting in options.settings:
        for name, launch in launches(real_workload(setting, options.data, options.dictionary)):
            if name.startswith(tuple(options.kernels or ("",))):
                runs = run_programs(launch)
                rows = {
                    block.name: round(body_runs(block.node, lines), 3)
                    for file, lines in runs.items()
                    for block in source_blocks(KERNELS / file)
                }
                table.setdefault(setting, {})[name] = rows
                print(setting, name, rows, flush=True)
                FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
