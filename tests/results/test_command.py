"""The command line of the experiments: its list, each experiment's options, and its errors."""

import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.__main__ import COMMANDS, app, main
from results.experiments import EXPERIMENTS

NAMES = [*EXPERIMENTS, *(function.__name__ for functions in COMMANDS.values() for function in functions)]


def test_every_experiment_is_listed_in_one_line() -> None:
    """The names are unique."""
    assert len(set(NAMES)) == len(NAMES)
    listed, without_help = (CliRunner().invoke(app, arguments).output for arguments in (["--help"], []))
    assert without_help.strip() == listed.strip()
    lines = [line.strip("│ ").split(maxsplit=1) for line in listed.splitlines() if line.startswith("│")]
    assert [line[0] for line in lines if line[0] != "--help"] == NAMES
    assert all(line[1].endswith(".") for line in lines)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", ["table1", "tables"])
def test_every_experiment_keeps_the_memory_that_it_frees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("neuroae.utils.devices.keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(sys, "argv", ["results", name, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("results", run_name="__main__", alter_sys=True)
    assert calls == [True]


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_options(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "Options" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table2"], "No such command 'table2'"),
        (["table3-trades", "--data-dir", "x"], "Missing option '--weights'"),
        (["table2-no-dropout", "--data-dir", "x", "--weights", "y"], "No such option: --weights"),
        (["table6", "--data-dir", "x", "--weights", "y"], "No such option: --weights"),
        (["table6", "--data-dir", "x", "--undefended", "y"], "No such option: --undefended"),
        (["tables", "--data-dir", "x"], "No such option: --data-dir"),
        (["table1", "--data-dir", "x"], "Missing option '--weights'"),
        (["beyond"], "Missing option '--data-dir'"),
    ],
)
def test_what_an_experiment_does_not_take_or_needs_is_named(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_mistake_ends_the_command_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["results", "worst_of_all", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^results: .* lacks table1, table6, beyond, selection, selection-more of"):
        main()
