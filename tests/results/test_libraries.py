"""The comparison with other libraries: the attacks, and the page."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacked_models import distance
from bent_model import bent_model, label_by_model
from models import Linear, random_images
from neuroae import resnet32
from neuroae.attacks import APGDSettings, Perturbed, PGDSettings
from neuroae.attacks.losses import margin as our_margin
from neuroae.evaluation import Accuracy, Evaluation, Scoring, load_evaluation, run_evaluation
from neuroae.evaluation.attack import Perturbation
from neuroae.evaluation.scoring import Block
from neuroae.evaluation.statistics import vote_accuracy
from results.experiments import crosscheck
from results.libraries import LibraryAttack, crosscheck_rows, margin, write_crosscheck

EPSILON = 8 / 255
SCORING = Scoring(draws=1)


def attacks(model: nn.Module) -> dict[str, Perturbation]:
    """Returns the attacks of the cross-check, on another model."""
    placed = []
    for attack in crosscheck(resnet32().eval()):
        placed.append(attack if isinstance(attack, LibraryAttack) else replace(attack, source=model))
    return {attack.name: attack for attack in placed}


NAMES = list(attacks(nn.Identity().eval()))


def craft(attack: Perturbation, model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor) -> Perturbed:
    return attack.craft(model, Block(images, labels, ids), SCORING)


def test_each_attack_of_ours_stands_before_those_of_the_libraries() -> None:
    titles = [f"PGD, {loss}, {steps} steps" for loss in ("cross-entropy", "margin") for steps in (20, 100)]
    expected = [f"{title}, {library}" for title in titles for library in ("ours", "foolbox", "torchattacks")]
    assert [*expected, *(f"APGD, cross-entropy, 100 steps, {name}" for name in ("ours", "torchattacks"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_library_attacks_within_the_budget(name: str) -> None:
    model, (images, _, ids) = Linear(1, 8, 10).eval(), random_images(60)
    labels = model(images).argmax(-1)
    attacked = craft(attacks(model)[name], model, images, labels, ids).images
    assert distance(attacked, images, "linf").max() <= EPSILON + 1e-6
    assert not attacked.requires_grad
    moved = our_margin(model(attacked), labels) - our_margin(model(images), labels)
    assert (moved >= 0).all()
    assert (moved > 0).any()


@pytest.mark.parametrize("title", sorted({name.rpartition(", ")[0] for name in NAMES if name.startswith("PGD")}))
def test_libraries_agree_on_every_image_where_signs_are_clear(title: str) -> None:
    """A linear model of two classes has one direction, so all three end at the same corner."""
    model, (images, _, ids) = Linear(1, 8, 2).eval(), random_images()
    labels = torch.arange(6) % 2
    same_attack = [each for name, each in attacks(model).items() if name.startswith(title)]
    ours, *others = (craft(attack, model, images, labels, ids).images for attack in same_attack)
    assert len(others) == 2
    rise = (model.layer.weight[1 - labels] - model.layer.weight[labels]).reshape(images.shape).sign()
    torch.testing.assert_close(ours, (images + EPSILON * rise).clamp(0, 1), rtol=0, atol=1e-6)
    for other in others:
        torch.testing.assert_close(other, ours, rtol=0, atol=1e-6)


def test_the_margin_given_to_others_is_the_one_that_we_raise() -> None:
    logits, labels = torch.randn(50, 10), torch.randint(10, (50,))
    torch.testing.assert_close(margin(logits, labels), our_margin(logits, labels))


@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
def test_an_attack_of_a_library_says_what_it_is_and_what_it_takes(library: str) -> None:
    attack = LibraryAttack("some", library, PGDSettings(steps=3, realizations=1))  # type: ignore[arg-type]
    identity, reported = attack.identity(), []
    assert identity["library"].startswith(f"{library} 3.")
    assert (identity["access"], identity["gradients"], identity["settings"]["epsilon"]) == ("white-box", 3, EPSILON)
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    perturbed = attack.craft(model, Block(images, labels, ids), SCORING, reported.append)
    assert (perturbed.gradients, perturbed.forwards, int(perturbed.zero.sum())) == (3, 0, 0)
    assert sum(reported) == attack.passes * len(images)


def test_an_attack_that_a_library_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="settings is APGDSettings, which foolbox has no attack for"):
        LibraryAttack("some", "foolbox", APGDSettings(realizations=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a small model's cross-check."""
    torch.manual_seed(0)
    model, path = bent_model(), tmp_path_factory.mktemp("crosscheck") / "done"
    evaluation = Evaluation(model, label_by_model(model), list(attacks(model).values()), SCORING, 50, "bent")
    run_evaluation(evaluation, path)
    return path


def test_rows_count_verdicts_and_those_equal_to_ours(folder: Path) -> None:
    results = load_evaluation(folder)
    rows = list(crosscheck_rows(results))
    assert [row[1] for row in rows] == ["ours", "foolbox", "torchattacks"] * 4 + ["ours", "torchattacks"]
    for (attack, library, value, interval, equal, largest, _), name in zip(rows, NAMES, strict=True):
        assert f"{attack}, {library}" == name
        accuracy = vote_accuracy(results.records[name])
        assert accuracy.images == 40
        assert value == f"{accuracy.value:.1%}"
        assert interval == "{:.1%} to {:.1%}".format(*Accuracy(accuracy.correct, 40).interval())
        assert float(largest) / 255 <= EPSILON + 1e-6
        assert (equal == "") == (library == "ours")
        assert equal == "" or float(equal.rstrip("%")) >= 95
    assert 0 < vote_accuracy(results.records[NAMES[0]]).correct < 39


def test_the_page_has_every_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_crosscheck(folder)
    page = (folder / "README.md").read_text()
    assert capsys.readouterr().out.strip() in page
    assert page.count("| torchattacks |") == 5
    assert "the first 40 of some" in page
    assert "{" not in page
