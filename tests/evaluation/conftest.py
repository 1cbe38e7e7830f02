"""Fixtures of the tests of evaluations."""

import pytest


@pytest.fixture(autouse=True)
def _without_probes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns the probes off, which take longer than most evaluations of these tests; ``probing`` leaves them on."""
    if "probing" not in request.fixturenames:
        monkeypatch.setattr("neuroae.evaluation.run.probe_evaluation", lambda *_: None)


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the probes on, with attacks of two steps."""
    monkeypatch.setattr("neuroae.evaluation.checks.sanity.STEPS", 2)
