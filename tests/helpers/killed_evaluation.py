"""Evaluations that are killed again and again: killed_evaluation.py FOLDER.

They run in children of this process, which itself never computes, so that a child starts at once. The evaluation in
FOLDER/points is killed once at each of the points below. The one in FOLDER/moments is killed after growing delays,
until a child completes it. The child's own timer kills it by SIGALRM, which runs no handler and no clean-up either.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neuroae.evaluation import run, run_evaluation
from neuroae.evaluation.checks import sanity
from neuroae.evaluation.folder import to_line
from neuroae.evaluation.records import Record, record_fields
from small_evaluation import small_evaluation

# The number of steps of the probes' attacks, few so that they are quick.
FEW_STEPS = 2


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def later(call: Callable[..., Any], action: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that calls the first one in its first call, and the other in the second."""
    calls = iter([call])
    return lambda *arguments, **named: next(calls, action)(*arguments, **named)


def replacing_of(name: str) -> None:
    replace = os.replace
    os.replace = lambda source, target: (die if Path(target).name == name else replace)(source, target)


def half_an_image(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    die()


def half_a_record(path: Path, records: list[Record]) -> None:
    lines = "".join(to_line(record_fields(record)) for record in records)
    with path.open("a") as file:
        file.write(lines[: len(lines) - 30])
    die()


def patch(module: Any, name: str, action: Callable[..., Any]) -> None:
    setattr(module, name, later(getattr(module, name), action))


POINTS: dict[str, Callable[[], None]] = {
    "while the manifest is written": lambda: replacing_of("manifest.json"),
    "while images are written": lambda: patch(Path, "write_bytes", half_an_image),
    "after images are written": lambda: patch(run, "judge", die),
    "before records are written": lambda: patch(run, "append_records", die),
    "while records are written": lambda: patch(run, "append_records", half_a_record),
    "while a time is written": lambda: patch(run, "append_lines", die),
    "while records are merged": lambda: replacing_of("records.jsonl"),
    "between the merged files": lambda: replacing_of("times.jsonl"),
    "before the probes": lambda: setattr(run, "probe_evaluation", die),
    "between the probes": lambda: setattr(sanity, "input_range", die),
    "while probes are written": lambda: replacing_of("sanity.json"),
}


def killed_after(seconds: float) -> Callable[[], object]:
    return lambda: signal.setitimer(signal.ITIMER_REAL, seconds)


def child(folder: Path, prepare: Callable[[], object]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        torch.set_num_threads(1)
        prepare()
        run_evaluation(small_evaluation(), folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(process: int) -> int:
    """Returns a child's exit status: 0, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path) -> None:
    sanity.STEPS = FEW_STEPS
    for point, prepare in POINTS.items():
        assert ended(child(folder / "points", prepare)) == -signal.SIGKILL, point
    assert ended(child(folder / "points", lambda: None)) == 0
    kills = 0
    while (status := ended(child(folder / "moments", killed_after(0.01 * (kills + 1))))) == -signal.SIGALRM:
        kills += 1
    assert status == 0
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
