"""The version that the command line tells."""

from importlib.metadata import version

from typer.testing import CliRunner

from neuroae.cli import app


def test_the_installed_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"neuroae {version('neuroae')}\n")


def test_the_verbs_stay_under_their_help() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "A sparse randomized autoencoding defense" in result.stdout
    assert "dictionary" in result.stdout
