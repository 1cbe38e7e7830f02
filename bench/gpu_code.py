"""What a kernel's machine code would cost: its instructions, weighted by how often they run, against published rates.

``nvdisasm``, which comes with Triton, disassembles the kernel and names the lines of source that each instruction
comes from. A branch back to an earlier instruction closes a loop. The last instructions before it come from the header
of the loop in the source. ``bench/gpu_trips.py`` counts how often the body of that loop runs.
"""

import ast
import bisect
import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import triton

import neuroae.kernels.triton

LANES = 32
SOURCE_LINE = re.compile(r'\s*//## File "([^"]*)", line (\d+)')
LABEL = re.compile(r"([.$\w]+):\s*$")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);?\s*$")
TARGET = re.compile(r"`\(([^)]*)\)")

KERNELS = Path(neuroae.kernels.triton.__file__).parent

# How often the body of each loop and branch runs in a program, on average, by name.
Trips = Mapping[str, float]


@dataclass(frozen=True)
class Block:
    """A loop or a branch of a kernel's source.

    Attributes:
        name: File, function and header, such as "steps.py project: for first in range(0, PIXELS, PIXEL_SLICE)".
        node: Its syntax tree.
    """

    name: str
    node: ast.For | ast.While | ast.If

    def is_around(self, line: int) -> bool:
        """Returns whether a line is in the body."""
        return self.node.body[0].lineno <= line <= (self.node.body[-1].end_lineno or 0)


@functools.cache
def source_blocks(file: Path) -> list[Block]:
    """Returns the loops and branches of a file. Those with the same function and header are numbered from 2 on."""
    text = file.read_text()
    lines = text.splitlines()
    names: Counter[str] = Counter()
    blocks = []
    for function in ast.parse(text).body:
        for node in ast.walk(function):
            if isinstance(function, ast.FunctionDef) and isinstance(node, ast.For | ast.While | ast.If):
                name = f"{file.name} {function.name}: {lines[node.lineno - 1].strip().rstrip(':')}"
                names[name] += 1
                number = f" ({names[name]})" if names[name] > 1 else ""
                blocks.append(Block(name + number, node))
    return blocks


@functools.cache
def loop_headers(file: Path) -> dict[int, str]:
    """Returns the names of a file's loops by the lines of their headers, without those that the compiler unrolls."""
    blocks = source_blocks(file) if file.exists() else []
    loops = [block for block in blocks if not isinstance(block.node, ast.If) and "static_range" not in block.name]
    return {block.node.lineno: block.name for block in loops}


@functools.cache
def branches_around(file: Path, line: int) -> list[str]:
    """Returns the names of the branches whose body holds this line."""
    blocks = source_blocks(file) if file.exists() else []
    return [block.name for block in blocks if isinstance(block.node, ast.If) and block.is_around(line)]


@dataclass(frozen=True)
class Rates:
    """Published rates of a GPU, a second (``docs/gpu-roofline.md`` names the sources).

    Attributes:
        issue: Warp instructions: four schedulers on each SM issue one a clock.
        multiply_add: Float32 multiply-adds.
        memory: Bytes.
        l2: Bytes between the L2 cache and the SMs.
    """

    issue: float
    multiply_add: float
    memory: float
    l2: float


RATES = {
    "A100": Rates(issue=108 * 4 * 1.41e9, multiply_add=9.75e12, memory=2.04e12, l2=7.2e12),
    "H100": Rates(issue=132 * 4 * 1.98e9, multiply_add=33.5e12, memory=3.35e12, l2=7.2e12),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: With its modifiers, such as "LDG.E.128".
        target: The label that a branch or call names, or None.
        lines: The lines of source it comes from, (file name, line) each; the first is the innermost.
    """

    opcode: str
    target: str | None
    lines: tuple[tuple[str, int], ...]

    @property
    def family(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def divides(self) -> bool:
        """Whether this calls a division, or converts an integer to a float."""
        if self.family == "CALL":
            return re.search("div|rem", self.target or "") is not None
        return self.family in ("I2F", "I2FP", "I2FP32")

    @property
    def bytes_per_warp(self) -> int:
        """Bytes that all lanes of a warp load from or store to global memory; 0 for other instructions."""
        if self.family not in ("LDG", "STG", "LDGSTS", "RED", "ATOMG"):
            return 0
        if match := re.search(r"\.(128|64|U8|S8|U16|S16)\b", self.opcode):
            return LANES * {"128": 16, "64": 8, "8": 1, "16": 2}[match[1].strip("US")]
        return LANES * 4


@dataclass(frozen=True)
class Loop:
    """A loop from instruction ``first`` to ``last``, the branch back."""

    first: int
    last: int
    name: str

    def __contains__(self, place: int) -> bool:
        return self.first <= place <= self.last


class MachineCode:
    """A kernel's instructions in order, with the subroutines that it calls.

    Args:
        text: The output of ``nvdisasm -c -gi``.
    """

    def __init__(self, text: str) -> None:
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        lines: list[tuple[str, int]] = []
        is_complete = False
        for row in text.splitlines():
            if match := SOURCE_LINE.match(row):
                if is_complete:
                    lines, is_complete = [], False
                lines.append((Path(match[1]).name, int(match[2])))
            elif match := LABEL.match(row):
                self.labels[match[1]] = len(self.instructions)
            elif match := INSTRUCTION.match(row):
                opcode, operands = match.groups()
                target = TARGET.search(operands)
                name = target[1] if target else None
                self.instructions.append(Instruction(opcode, name, tuple(lines)))
                is_complete = True

    @functools.cached_property
    def length(self) -> int:
        """The number of instructions up to the last exit.

        Behind it are subroutines, and code for warps whose threads are not together, which never runs: the kernels'
        branches take all threads of a warp.
        """
        return 1 + max(place for place, instruction in enumerate(self.instructions) if instruction.opcode == "EXIT")

    @functools.cached_property
    def subroutines(self) -> dict[str, range]:
        """The instructions of each subroutine that is called, by its label."""
        targets = {i.target for i in self.instructions if i.family == "CALL"}
        names = {name for name in targets if self.labels.get(name or "", 0) >= self.length}
        starts = sorted(self.labels[str(name)] for name in names)
        ends = [*starts[1:], len(self.instructions)]
        return {str(n): range(self.labels[str(n)], ends[starts.index(self.labels[str(n)])]) for n in names}

    @functools.cached_property
    def loops(self) -> list[Loop]:
        """All loops, the innermost first."""
        ends: dict[int, int] = {}
        for place, instruction in enumerate(self.instructions[: self.length]):
            start = self.labels.get(instruction.target or "", place)
            if instruction.family == "BRA" and start < place:
                ends[start] = place
        loops: list[Loop] = []
        for first, last in sorted(ends.items(), key=lambda end: end[1] - end[0]):
            places = (place for place in range(last, first - 1, -1) if not any(place in loop for loop in loops))
            lines = (self.instructions[place].lines[0] for place in places if self.instructions[place].lines)
            names = (loop_headers(KERNELS / file).get(line) for file, line in lines)
            loops.append(Loop(first, last, next(name for name in names if name is not None)))
        return loops

    def innermost(self, place: int) -> Loop | None:
        return next((loop for loop in self.loops if place in loop), None)

    def weights(self, trips: Trips) -> list[float]:
        """Returns how often each instruction runs in a warp.

        Raises:
            KeyError: A loop or branch has not been counted.
        """
        copies = Counter(loop.name for loop in self.loops)
        weights = []
        for place in range(self.length):
            loop = self.innermost(place)
            weight = 1.0 if loop is None else trips[loop.name] / copies[loop.name]
            for file, line in self.instructions[place].lines:
                weight = min(weight, *(trips[name] for name in branches_around(KERNELS / file, line)), weight)
            weights.append(weight)
        calls = dict.fromkeys(self.subroutines, 0.0)
        for place, weight in enumerate(weights):
            target = self.instructions[place].target
            if self.instructions[place].family == "CALL" and target in calls:
                calls[target] += weight
        starts = sorted((part.start, name) for name, part in self.subroutines.items())
        for place in range(self.length, len(self.instructions)):
            position = bisect.bisect_right(starts, (place, "\uffff")) - 1
            instruction = self.instructions[place]
            is_padding = instruction.family == "NOP" or self.labels.get(instruction.target or "") == place
            weights.append(0.0 if position < 0 or is_padding else calls[starts[position][1]])
        return weights

    def stages_product(self, loop: Loop) -> bool:
        """Returns whether a loop puts tiles of a product into shared memory."""
        body = self.instructions[loop.first : loop.last + 1]
        families = {instruction.family for instruction in body}
        multiplies = sum(instruction.family.startswith("FFMA") for instruction in body)
        return families >= {"STS", "LDS"} and 2 * multiplies > len(body) - 2 * multiplies

    def loop_barriers(self) -> int:
        """Returns the number of block barriers inside loops, without those around the tiles of a product."""
        places = [place for place in range(self.length) if self.instructions[place].family == "BAR"]
        loops = [loop for loop in map(self.innermost, places) if loop is not None]
        return sum(not self.stages_product(loop) for loop in loops)

    def division_calls(self) -> int:
        """Returns the number of calls that divide, and of conversions from integer to float, inside loops.

        A division by an unknown integer is a call (64 bits) or goes through a conversion (32 bits).
        """
        places = (place for place in range(self.length) if self.instructions[place].divides)
        return sum(self.innermost(place) is not None for place in places)


@dataclass(frozen=True)
class Cost:
    """The cost of a launch.

    Attributes:
        warp_instructions: Warp instructions of the whole launch.
        memory_instructions: Those that load from or store to global memory.
        multiply_adds: Multiply-adds of single lanes.
        moved_bytes: Bytes of all tensors, each read or written once.
        requested_bytes: Bytes that loads and stores ask for: masked lanes, and hits in the L1 cache, count in full.
    """

    warp_instructions: float
    memory_instructions: float
    multiply_adds: float
    moved_bytes: float
    requested_bytes: float

    def microseconds(self, gpu: str) -> dict[str, float]:
        """Returns the least time that each resource implies."""
        rates = RATES[gpu]
        seconds = {
            "issue slots": self.warp_instructions / rates.issue,
            "multiply-adds": self.multiply_adds / rates.multiply_add,
            "memory": self.moved_bytes / rates.memory,
            "L2": self.requested_bytes / rates.l2,
        }
        return {name: 1e6 * time for name, time in seconds.items()}


def cost(code: MachineCode, trips: Trips, warps: int, moved_bytes: int) -> Cost:
    """Returns the cost of a launch of this many warps in all, that moves these bytes."""
    weights = code.weights(trips)
    pairs = [(i, warps * weight) for i, weight in zip(code.instructions, weights, strict=True)]
    return Cost(
        sum(weight for _, weight in pairs),
        sum(weight for i, weight in pairs if i.bytes_per_warp),
        sum(LANES * weight * (2 if i.family == "FFMA2" else 1) for i, weight in pairs if i.family.startswith("FFMA")),
        moved_bytes,
        sum(weight * i.bytes_per_warp for i, weight in pairs),
    )


def disassemble(cubin: bytes) -> MachineCode:
    """Disassembles a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.knobs.nvidia.cuobjdump.path).with_name("nvdisasm")
        finished = subprocess.run([tool, "-c", "-gi", file.name], capture_output=True, text=True, check=True)
    return MachineCode(finished.stdout)
