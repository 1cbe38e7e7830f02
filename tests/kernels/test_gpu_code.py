"""The count of what a kernel's machine code does, on code written by hand."""

import sys
from pathlib import Path
from typing import Any

import pytest

from neuroae.kernels import is_interpreting

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is published for Linux only"),
    pytest.mark.skipif(is_interpreting(), reason="the interpreter does not compile"),
]

SOURCE = """
def kernel(x, n):
    for row in range(n):
        load(x)
        while x > 0:
            x = step(x)
    if rare(x):
        store(x)
"""

# Lines of the source above: 3 is the outer loop, 5 the inner one, 8 the body of the branch.
CODE = """
kernel:
.text.kernel:
	//## File "/somewhere/kernel.py", line 2
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_0:
	//## File "/somewhere/kernel.py", line 4
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_1:
	//## File "/somewhere/kernel.py", line 6
        /*0030*/                   FFMA R8, R4, R5, R8 ;
        /*0040*/                   I2F.RP R9, R8 ;
        /*0050*/                   CALL.REL.NOINC `($kernel$div) ;
	//## File "/somewhere/kernel.py", line 5
        /*0060*/              @P0 BRA `(.L_x_1) ;
	//## File "/somewhere/kernel.py", line 3
        /*0070*/              @P1 BRA `(.L_x_0) ;
	//## File "/somewhere/kernel.py", line 8
        /*0080*/              @P2 STG.E.U16 desc[UR4][R2.64], R8 ;
	//## File "/somewhere/kernel.py", line 2
        /*0090*/                   EXIT ;
        .weak           $kernel$div
$kernel$div:
        /*00a0*/                   IMAD.WIDE R4, R5, R6, R4 ;
        /*00b0*/                   RET.REL.NODEC R2 `(kernel) ;
.L_x_2:
        /*00c0*/                   BRA `(.L_x_2) ;
        /*00d0*/                   NOP ;
"""

OUTER, INNER, BRANCH = (f"kernel.py kernel: {text}" for text in ("for row in range(n)", "while x > 0", "if rare(x)"))
TRIPS = {OUTER: 4.0, INNER: 10.0, BRANCH: 0.25}


@pytest.fixture
def gpu_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    from bench import gpu_code

    (tmp_path / "kernel.py").write_text(SOURCE)
    monkeypatch.setattr(gpu_code, "KERNELS", tmp_path)
    return gpu_code


def test_instructions_count_as_often_as_their_loop_or_branch_runs(gpu_code: Any) -> None:
    code = gpu_code.MachineCode(CODE)
    weights = dict(zip((i.opcode for i in code.instructions), code.weights(TRIPS), strict=True))
    assert weights == {
        "S2R": 1,
        "LDG.E.128": 4,
        "BAR.SYNC.DEFER_BLOCKING": 4,
        "FFMA": 10,
        "I2F.RP": 10,
        "CALL.REL.NOINC": 10,
        "BRA": 0,  # the last of three
        "STG.E.U16": 0.25,
        "EXIT": 1,
        "IMAD.WIDE": 10,
        "RET.REL.NODEC": 10,
        "NOP": 0,
    }


def test_a_loop_that_was_not_counted_is_refused(gpu_code: Any) -> None:
    with pytest.raises(KeyError, match="while x > 0"):
        gpu_code.MachineCode(CODE).weights({OUTER: 4.0, BRANCH: 1.0})


def test_barriers_and_divisions_count_inside_loops_only(gpu_code: Any) -> None:
    code = gpu_code.MachineCode(CODE)
    assert (code.loop_barriers(), code.division_calls()) == (1, 2)
    straight = gpu_code.MachineCode(CODE.replace("@P0 BRA `(.L_x_1)", "NOP").replace("@P1 BRA `(.L_x_0)", "NOP"))
    assert (straight.loop_barriers(), straight.division_calls()) == (0, 0)


def test_calls_that_do_not_divide(gpu_code: Any) -> None:
    code = gpu_code.MachineCode(CODE.replace("$kernel$div", "$kernel$redux"))
    assert code.division_calls() == 1  # the conversion
    code = gpu_code.MachineCode(CODE.replace("`($kernel$div)", "`(.L_x_1)"))
    assert code.subroutines == {}


def test_a_branch_back_without_a_line_of_its_own(gpu_code: Any) -> None:
    """The loop's name comes from the last instruction of its header, not of the loop inside."""
    inner, outer = "/*0055*/ ISETP R8, R9, PT ;", "/*0065*/ IADD3 R2, R2, 0x1, RZ ;"
    line = '//## File "/somewhere/kernel.py", line'
    text = CODE.replace("line 5\n", f"line 5\n{inner}\n{line} 6\n").replace("line 3\n", f"line 3\n{outer}\n{line} 4\n")
    assert [loop.name for loop in gpu_code.MachineCode(text).loops] == [INNER, OUTER]


def test_barriers_around_the_tiles_of_a_product_do_not_count(gpu_code: Any) -> None:
    tile = "/*0015*/ STS [R0], R4 ;\n/*0016*/ LDS R4, [R0] ;\n" + "/*0017*/ FFMA R8, R4, R5, R8 ;\n" * 20
    text = CODE.replace(".L_x_1:\n", tile).replace("@P0 BRA `(.L_x_1)", "NOP")
    assert gpu_code.MachineCode(text).loop_barriers() == 0


def test_the_cost_of_a_launch(gpu_code: Any) -> None:
    cost = gpu_code.cost(gpu_code.MachineCode(CODE), TRIPS, 100, 12_345)
    assert cost.multiply_adds == 100 * 10 * 32
    assert cost.memory_instructions == 100 * 4.25
    assert cost.requested_bytes == 100 * (4 * 512 + 0.25 * 64)
    times = cost.microseconds("H100")
    assert times["memory"] == pytest.approx(12_345 / 3.35e12 * 1e6)
    assert times["issue slots"] == pytest.approx(cost.warp_instructions / (132 * 4 * 1.98e9) * 1e6)
