"""Refusals of an evaluation: other settings than the folder's, and settings that are unusable."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from models import Linear, small_defense
from neuroae.attacks import PGDSettings
from neuroae.evaluation import Attack, Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.evaluation.folder import slug
from neuroae.utils.files import claimed
from small_evaluation import BUDGET, contents, random_data, small_evaluation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda evaluation: replace(evaluation, block=4), r"block is 3 there and 4 here"),
        (lambda evaluation: replace(evaluation, scoring=Scoring(5, 3)), r"scoring\.draws is 4 there and 5 here"),
        (lambda evaluation: replace(evaluation, scoring=Scoring(4, 2)), r"scoring\.seed is 3 there and 2 here"),
        (lambda evaluation: replace(evaluation, data=random_data(9)), r"data\.images is 10 there and 9 here"),
        (lambda evaluation: replace(evaluation, model=small_defense()), r"model\.fingerprint is"),
        (
            lambda evaluation: replace(evaluation, attacks=evaluation.attacks[:1]),
            r"order is .*attacks\.W-NFGA smooth from other",
        ),
        (lambda evaluation: replace(evaluation, attacks=evaluation.attacks[::-1]), r"order is \['clean', 'W-AIGA'"),
        (
            lambda evaluation: replace(
                evaluation, attacks=[other_settings(evaluation.attacks[0]), evaluation.attacks[1]]
            ),
            r"attacks\.W-AIGA\.settings\.epsilon is 0\.1 there and 0\.2 here",
        ),
        (
            lambda evaluation: replace(
                evaluation, attacks=[replace(evaluation.attacks[0], precision="bfloat16"), evaluation.attacks[1]]
            ),
            r"attacks\.W-AIGA\.precision is 'float32' there and 'bfloat16' here",
        ),
    ],
    ids=["block", "draws", "seed", "data", "model", "fewer attacks", "order", "epsilon", "precision"],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    evaluation = small_evaluation()
    run_evaluation(evaluation, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"manifest\.json belongs to another run: .*{message}"):
        run_evaluation(change(evaluation), tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_of_one_backend_is_not_continued_by_another(backend: ModuleType, tmp_path: Path) -> None:
    """Another backend would give other bits."""
    run_evaluation(small_evaluation(), tmp_path)
    evaluation = small_evaluation()
    evaluation.model.encoder.backend = "reference"
    with pytest.raises(ValueError, match=r"engine is '(cpu|triton)' there and 'reference' here"):
        run_evaluation(evaluation, tmp_path)


def other_settings(attack: Attack) -> Attack:
    return replace(attack, settings=replace(attack.settings, epsilon=0.2))


def test_another_number_of_threads_is_refused(tmp_path: Path) -> None:
    run_evaluation(small_evaluation(), tmp_path)
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="threads is 1 there and 2 here"):
        run_evaluation(small_evaluation(), tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "nothing"], ids=["of no evaluation", "a list", "no JSON"])
def test_something_else_is_not_taken_for_a_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is not"):
        run_evaluation(small_evaluation(), tmp_path)
    assert (tmp_path / "manifest.json").read_text() == content


@pytest.mark.parametrize("left", ["records.jsonl", "records", "images"], ids=["all", "parts", "images"])
def test_records_of_nobody_knows_what_are_not_taken_for_done(tmp_path: Path, left: str) -> None:
    """Without the manifest, records of another epsilon would be accepted as this evaluation's."""
    evaluation = small_evaluation()
    run_evaluation(evaluation, tmp_path)
    for path in tmp_path.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    other = replace(evaluation, attacks=[other_settings(evaluation.attacks[0]), evaluation.attacks[1]])
    with pytest.raises(
        ValueError, match=rf"holds {left} and no manifest\.json.*Use another folder, or remove this one"
    ):
        run_evaluation(other, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_what_was_measured_of_another_evaluation_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "sanity.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds sanity\.json and no manifest\.json"):
        run_evaluation(small_evaluation(), tmp_path)


def test_ensembles_and_many_draws_make_no_sense_where_masks_are_fixed() -> None:
    with pytest.raises(ValueError, match="draws is 10, expected 1 where masks are fixed"):
        Scoring(deterministic=True)
    evaluation = small_evaluation()
    attacks = attacks_from(evaluation.model, BUDGET, ["w-aiga"], variant="ensemble")
    with pytest.raises(ValueError, match="W-AIGA ensemble is on an ensemble"):
        replace(evaluation, attacks=attacks, scoring=Scoring(1, deterministic=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 0}, "block is 0"),
        ({"attacks": [Attack("Clean!", Linear(1, 8, 10).eval(), BUDGET)]}, r"attacks are named clean, Clean!"),
        ({"attacks": [Attack("?", Linear(1, 8, 10).eval(), BUDGET)]}, "names that differ in letters or digits"),
        (
            {"attacks": [Attack("a\nb", Linear(1, 8, 10).eval(), BUDGET)]},
            r"named 'a\\nb', expected a name without control",
        ),
        ({"model": small_defense().train()}, "model is in training mode"),
        ({"data": random_data(4).take(torch.tensor([1, 1]))}, "ids that differ"),
        ({"data": random_data(0)}, "data holds 0 images"),
    ],
    ids=["block", "two names for one folder", "no name", "two lines", "training mode", "one id twice", "no images"],
)
def test_what_cannot_be_evaluated_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(small_evaluation(), **change)  # type: ignore[arg-type]


def test_names_in_any_script_have_a_folder() -> None:
    assert slug("攻击") == "攻击"
    assert slug("W-NFGA smooth, N_E 3") == "w-nfga-smooth-n-e-3"
    replace(small_evaluation(), attacks=[Attack("攻击", Linear(1, 8, 10).eval(), BUDGET)])


def test_numbers_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="draws is a float, expected an int"):
        Scoring(draws=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed is a str, expected an int"):
        Scoring(seed="7")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="block is a float, expected an int"):
        replace(small_evaluation(), block=2.5)


class Broken(Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) / 0


def test_a_model_whose_answers_are_no_numbers_is_refused(tmp_path: Path) -> None:
    broken = replace(small_evaluation(), model=Broken(1, 8, 10).eval(), attacks=[])
    with pytest.raises(ValueError, match="the model's logits for image 5 are not finite"):
        run_evaluation(broken, tmp_path)


def test_an_attack_that_the_model_cannot_give_fails_before_any_work(tmp_path: Path) -> None:
    model = Linear(1, 8, 2).eval()
    data = replace(random_data(4), labels=torch.tensor([0, 1, 0, 1]))
    attack = Attack("DLR", model, PGDSettings(0.1, 0.1, 1, realizations=1, loss="dlr"))
    with pytest.raises(ValueError, match="logits has 2 classes, expected at least 3"):
        run_evaluation(Evaluation(model, data, [attack]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_where_another_evaluation_is_at_work_is_refused(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(BlockingIOError, match="another run is at work"):
        run_evaluation(small_evaluation(), tmp_path)
    assert run_evaluation(small_evaluation(), tmp_path).records
