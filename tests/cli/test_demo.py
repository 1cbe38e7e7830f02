"""The demonstration, at a small size."""

from dataclasses import replace
from pathlib import Path

import pytest

from neuroae.cli.demo import PICTURE, DemoSettings, run

TINY = DemoSettings(
    preset=replace(DemoSettings().preset, atoms=40, iterations=5, epochs=1, decoder_epochs=1),
    train_images=128,
    test_images=12,
    attacked_images=9,
    steps=2,
    realizations=2,
    ensemble=2,
)


def test_demo_trains_attacks_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(TINY, tmp_path, seed=0)
    attacks = {model: list(evaluations) for model, evaluations in results.items()}
    assert attacks == {
        "undefended": ["clean", "PGD"],
        "defense": ["clean", "W-NFGA identity", "W-NFGA smooth", "W-AIGA from unsupervised", "selection"],
    }
    for model, evaluations in results.items():
        counts = [len(each.records[attack]) for attack, each in evaluations.items()]
        assert counts == [12, *[9] * (len(evaluations) - 1)]
        for attack in list(evaluations)[1:]:
            passes = 9 * TINY.steps * (1 if model == "undefended" else TINY.realizations)
            assert evaluations[attack].passes(attack) == passes
            distance = (evaluations[attack].images(attack) - evaluations["clean"].images("clean")[:9]).abs().max()
            assert 0 < distance <= TINY.preset.epsilon + 2**-24
    printed = capsys.readouterr()
    assert printed.out.count("| defense") == 5
    assert f"picture: {tmp_path / PICTURE}" in printed.out
    assert "img/s, accuracy=" in printed.err
    assert (tmp_path / PICTURE).stat().st_size > 10_000


def test_demo_is_repeated_by_its_seed(tmp_path: Path) -> None:
    few = replace(TINY, train_images=64, test_images=4, attacked_images=2)
    first, second = (run(few, tmp_path, seed=3) for _ in range(2))
    for model, evaluations in first.items():
        assert list(evaluations) == list(second[model])
        for attack, one in evaluations.items():
            other = second[model][attack]
            assert (one.images(attack) == other.images(attack)).all()
            assert one.records[attack] == other.records[attack]
