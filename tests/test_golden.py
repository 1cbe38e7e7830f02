"""Numbers that a change of layout or of words must not change by a bit.

    python tests/test_golden.py

keeps those of this machine in ``golden.json``, by what decides the last bits: processor, backend and libraries. On
machines that have none there, the test is skipped.
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neuroae import Defense
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings
from neuroae.cli.demo import DemoSettings, train_models
from neuroae.data import load_dataset
from neuroae.evaluation import MODES, Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.kernels import BackendMissing, cpu
from neuroae.reports import write_report

GOLDEN = Path(__file__).with_name("golden.json")
TINY = replace(DemoSettings().preset, atoms=40, iterations=5, epochs=1, decoder_epochs=1)
BUDGET = {"epsilon": 0.1, "steps": 2, "realizations": 2}


def machine() -> str:
    """Returns the names of everything known to affect the last bits."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn"))
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    keys = ("cpu family", "model", "stepping")
    lines = [line.split(":") for line in described.split("\n\n")[0].splitlines() if ":" in line]
    processor = " ".join(value.strip() for name, value in lines if name.strip() in keys)
    blas = os.environ.get("OPENBLAS_CORETYPE", "")
    return f"{cpu.instruction_set()}, processor {processor} {blas}, {libraries}"


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def digest_of(module: nn.Module) -> str:
    return digest(*(tensor.detach().contiguous().numpy().tobytes() for tensor in module.state_dict().values()))


def attacks(defense: Defense, other: Defense, classifier: nn.Module) -> list[Any]:
    """Returns attacks by every method and mode, white-box and by transfer, and with each variant."""
    pgd, apgd = PGDSettings(**BUDGET, restarts=2), APGDSettings(**BUDGET)
    methods = attacks_from(defense, pgd, MODES) + attacks_from(other, pgd, ["w-aiga"], transfer="other")
    methods += attacks_from(classifier, pgd, transfer="plain", random=False)
    methods += attacks_from(defense, apgd, ["w-nfga-smooth", "selection"], method="APGD")
    methods += attacks_from(defense, PGDSettings.selection_recipe(**BUDGET), ["selection"], method="recipe")
    for variant in ("ensemble", "mean-field"):
        methods += attacks_from(defense, pgd, ["w-nfga-identity"], variant=variant)
    methods += attacks_from(defense, PGDSettings.fgsm(0.1, 2), ["w-nfga-smooth"], method="FGSM")
    return methods + attacks_from(defense, SquareSettings(0.1, 4, 2), method="Square")


def measure() -> dict[str, str]:
    """Returns digests of weights, dictionary, records and report."""
    torch.set_num_threads(1)
    models = train_models(load_dataset("digits", "train").take(slice(96)), TINY, seed=0)
    numbers = {name: digest_of(getattr(models, name)) for name in ("defense", "unsupervised", "undefended")}
    numbers["dictionary"] = digest(models.defense.encoder.atoms.numpy().tobytes())
    data = load_dataset("digits", "test").take(slice(10))
    evaluation = Evaluation(
        models.defense, data, attacks(models.defense, models.unsupervised, models.undefended), Scoring(3), 4
    )
    with tempfile.TemporaryDirectory() as folder:
        records = run_evaluation(evaluation, folder).records
        write_report(Path(folder))
        rows = json.loads(Path(folder, "summary.json").read_text())
    for name, each in records.items():
        numbers[f"records: {name}"] = digest(
            *(repr((one.image, one.vote, one.draws, one.selection, one.linf, one.l2)).encode() for one in each)
        )
    report_rows = [
        {key: row[key] for key in ("attack", "vote", "vote_low", "vote_high", "draw")}
        for row in (*rows["attacks"], *rows["together"])
    ]
    numbers["report"] = digest(json.dumps(report_rows).encode())
    return numbers


def test_numbers_are_the_ones_that_were_kept() -> None:
    try:
        machine_name = machine()
    except BackendMissing as reason:
        pytest.skip(str(reason))
    expected = json.loads(GOLDEN.read_text()).get(machine_name)
    if expected is None:
        pytest.skip(f"no numbers are kept for {machine_name}")
    assert measure() == expected


if __name__ == "__main__":
    everything = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    GOLDEN.write_text(json.dumps(everything | {machine(): measure()}, indent=1) + "\n")
    sys.stdout.write(f"{GOLDEN}: {machine()}\n")
