"""The version that the command line prints."""

from typer.testing import CliRunner

from neuroae import __version__
from neuroae.cli import app


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"neuroae {__version__}\n")


def test_the_verbs_stay_under_their_help() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "Judge adversarial defenses" in result.stdout
    assert "dictionary" in result.stdout
