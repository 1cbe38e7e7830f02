"""The curves and the picture of the cut: which records make a point, and that both are drawn."""

from pathlib import Path

import pytest
import torch

from evaluation_folder import CLEAN_IDENTITY, AttackCase, identity, write_evaluation
from neuroae.utils.files import load_json
from results import cut
from results_data import run, small_cifar10_defense

LINES = ("selection", "W-NFGA smooth", "W-AIGA from unquantized")


REALIZATIONS = ((10, 2), (40, 1))


def evaluation(folder: Path, accuracies: dict[str, int], images: int = 4) -> None:
    attacks = {"clean": AttackCase([True] * images, CLEAN_IDENTITY)}
    attacks |= {name: AttackCase([i < right for i in range(images)], identity()) for name, right in accuracies.items()}
    write_evaluation(folder, attacks)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for axis, mark, values in (("epsilon", "epsilon", ("2/255", "8/255")), ("steps", "N_S", (1, 20))):
        names = {f"{line}, {mark} {value}": 3 - i for line in LINES for i, value in enumerate(values)}
        evaluation(tmp_path / f"curve-{axis}", names)
    evaluation(
        tmp_path / "curve-realizations", {f"{line}, N_E {n}": right for line in LINES for n, right in REALIZATIONS}
    )
    return tmp_path


def test_every_point_is_a_vote_on_the_curves_images(work: Path) -> None:
    run("curves", "--output", work)
    rows = load_json(work / "curves" / "results.json")["rows"]
    assert {row["images"] for row in rows} == {4}
    points = {(row["axis"], row["attack"], row["value"]): row["accuracy"] for row in rows}
    assert points["epsilon", "selection", 0.0] == 1.0
    assert points["epsilon", "selection", 2.0] == 0.75
    assert points["steps", "W-NFGA smooth", 20.0] == 0.5
    assert points["realizations", "selection", 10.0] == 0.5
    assert points["realizations", "selection", 40.0] == 0.25
    assert (work / "curves" / "curves.png").stat().st_size > 10_000
    assert "| selection " in (work / "curves" / "README.md").read_text()


def test_the_gradient_of_the_picture_is_the_patchs_own() -> None:
    model = small_cifar10_defense().with_surrogate("selection")
    image, label = torch.rand(1, 3, 32, 32), torch.tensor([3])
    gradient, survivors = cut.code_gradient(model, image, label, seed=0, patch=(1, 2))
    code = model.encoder.encode(image, seed=0)
    assert gradient.shape == survivors.shape == (code.atoms,)
    assert int(survivors.sum()) == int(code.count[0, 1, 2])
    assert gradient.abs().max() > 0
