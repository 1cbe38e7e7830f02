"""The Triton kernels compiled without a GPU: registers, memory, and the instructions that exactness needs."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroae.kernels import is_interpreting

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux only"),
    pytest.mark.skipif(is_interpreting(), reason="the interpreter does not compile"),
]


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    from bench import gpu_budgets

    return gpu_budgets


@pytest.mark.slow
def test_every_kernel_is_within_its_budget() -> None:
    """On the one target whose instructions are counted; CI's script compiles for sm_80, too."""
    command = [sys.executable, "-m", "bench.gpu_budgets", "--targets", "sm_90"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.endswith("68 kernels compiled, 0 over budget\n"), finished.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spill": 8}, "spills 8"),
        ({"shared": 101_377}, "more than 101376"),
        ({"resident": 7}, "7 resident warps"),
        ({"target": "gfx942", "shared": 65_537, "resident": None}, "more than 65536"),
    ],
    ids=["spill", "shared memory", "resident warps", "local data share"],
)
def test_kernels_over_the_budget(
    budgets: Any,
    change: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command fails with one such kernel."""
    row = budgets.Row("sm_80", "cifar10", "encode", 8, 128, 0, 101_376, 8, "128 registers a thread")
    assert row.faults() == []
    over = replace(row, **change)
    monkeypatch.setattr(budgets, "measure_all", lambda targets: [row, over])
    assert budgets.main(["--targets", "sm_80"]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kernel", "change", "message"),
    [
        ("encode", {"instructions": 2201}, "2201 instructions a patch, more than 2200"),
        ("select", {"instructions": 1801}, "1801 instructions a patch, more than 1800"),
        ("draw", {"barriers": 1}, "1 barriers in loops, more than 0"),
        ("draw", {"divisions": 1}, "1 divisions in loops, more than 0"),
    ],
    ids=["instructions of encode", "instructions of select", "barriers", "divisions"],
)
def test_machine_code_over_the_budget(
    budgets: Any,
    kernel: str,
    change: dict[str, int],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command fails with one such kernel, and passes without it."""

    def row(instructions: int = 1800, barriers: int = 0, divisions: int = 0) -> Any:
        cost = budgets.Cost(100 * instructions, 0, 0, 0, 0)
        work = budgets.Work(barriers, divisions, cost, patches=100)
        return budgets.Row("sm_90", "cifar10", kernel, 4, 128, 0, 0, 16, "", work)

    monkeypatch.setattr(budgets, "measure_all", lambda targets: [row()])
    assert budgets.main(["--targets", "sm_90"]) == 0
    monkeypatch.setattr(budgets, "measure_all", lambda targets: [row(), row(**change)])
    assert budgets.main(["--targets", "sm_90"]) == 1
    assert message in capsys.readouterr().out


def test_instructions_have_a_budget_in_one_setting_and_must_be_counted_there(budgets: Any) -> None:
    work = budgets.Work(0, 0, budgets.Cost(1e6, 0, 0, 0, 0), patches=1)
    row = budgets.Row("sm_90", "cifar10", "encode", 4, 128, 0, 0, 16, "", work)
    assert row.faults()
    assert replace(row, target="sm_80").faults() == replace(row, setting="imagenette").faults() == []
    assert "has not counted" in replace(row, work=None).faults()[0]
    assert replace(row, work=None, target="sm_80").faults() == []


def test_barriers_of_one_warp_do_not_count(budgets: Any) -> None:
    """No warp waits for another."""
    workload = budgets.meta_workload(budgets.SETTINGS["cifar10"])
    launch = dict(budgets.launches(workload))["encode_backward identity"]
    code = budgets.disassemble(budgets.compile_launch(launch, "sm_90").asm["cubin"])
    trips = budgets.json.loads(budgets.TRIPS_FILE.read_text())["cifar10"]["encode_backward identity"]
    assert code.loop_barriers() > 0
    assert budgets.measure_work(code, launch, trips, workload).loop_barriers == 0
    assert budgets.measure_work(code, replace(launch, num_warps=2), trips, workload).loop_barriers > 0


@pytest.mark.parametrize(
    ("target", "usage", "expected"),
    [
        ("sm_80", (8, 128, 33_280), (16, "128 registers a thread")),
        ("sm_80", (8, 129, 33_280), (8, "129 registers a thread")),
        ("sm_86", (8, 64, 60_000), (8, "60000 bytes of shared memory")),
        ("sm_86", (1, 32, 0), (16, "16 programs an SM")),
        ("sm_90", (4, 16, 0), (64, "64 warps an SM")),
    ],
    ids=lambda value: str(value),
)
def test_resident_warps(budgets: Any, target: str, usage: tuple[int, ...], expected: tuple[int, str]) -> None:
    """Compares with results by hand from the published limits of an SM."""
    assert budgets.MULTIPROCESSORS[target].resident_warps(*usage) == expected


@pytest.mark.parametrize("setting", ["cifar10", "imagenette", "odd"])
def test_projections_are_ieee(budgets: Any, setting: str) -> None:
    """Tensor cores would round them to TF32."""
    launches = dict(budgets.launches(budgets.meta_workload(budgets.SETTINGS[setting])))
    for kernel in ("select", "selection_backward: cut", "selection_backward: back projection"):
        code = budgets.compile_launch(launches[kernel], "sm_90").asm["ptx"]
        assert "fma.rn.f32" in code
        assert "mma" not in code
        assert "tf32" not in code


def test_bfloat16_output_is_rounded_to_nearest(budgets: Any) -> None:
    launch = dict(budgets.launches(budgets.meta_workload(budgets.SETTINGS["odd"])))["conv_transpose bfloat16"]
    assert "cvt.rn.bf16" in budgets.compile_launch(launch, "sm_90").asm["ptx"]


def test_philox_may_overflow_where_overflows_are_asserted(budgets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``sanitize_overflow`` no 32-bit sum may overflow. Sums of Philox's keys do, and have no assertion."""
    launch = dict(budgets.launches(budgets.meta_workload(budgets.SETTINGS["odd"])))["draw"]
    options = launch.options | {"sanitize_overflow": True}
    monkeypatch.setattr(budgets.Launch, "options", options)
    code = budgets.compile_launch(launch, "sm_90").asm["ttir"]
    assert "overflow detected" in code
    assert not [key for key in (0x9E3779B9, 0xBB67AE85) if f"{key} : i64" in code]


def test_numbers_are_not_specialized(budgets: Any) -> None:
    """So the compiled kernel depends on what ``Launch.key`` holds; constants come last."""
    for setting in budgets.SETTINGS.values():
        for name, launch in budgets.launches(budgets.meta_workload(setting)):
            kinds = [parameter.is_constexpr for parameter in launch.kernel.params]
            assert kinds == sorted(kinds), name
            for parameter in launch.kernel.params:
                if not parameter.is_constexpr and not torch.is_tensor(launch.arguments[parameter.name]):
                    assert parameter.do_not_specialize, f"{name}: {parameter.name}"
                    assert parameter.annotation_type, f"{name}: {parameter.name}"


@pytest.mark.parametrize(
    ("target", "most"), [("sm_90", 1024), ("sm_100", 512), ("gfx942", 0)], ids=["sm_90", "sm_100", "gfx942"]
)
def test_dictionaries_that_would_spill_go_through_the_buffer(budgets: Any, target: str, most: int) -> None:
    with budgets.tiles_of(target):
        assert [budgets.tiles.fits_registers(number) for number in (most, most + 1)] == [True, False]
    assert budgets.tiles.REGISTER_ATOMS is None
