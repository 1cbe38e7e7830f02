"""Attacks to be evaluated: the paper's modes, variants of their sources, and their names."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models import Linear, small_defense
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings, apgd, pgd, square
from neuroae.evaluation import Attack, Scoring, attacks_from
from neuroae.evaluation.attack import craft
from neuroae.evaluation.scoring import Block
from neuroae.nn.variants import Ensemble, FixedMasks, MeanField
from neuroae.utils.contexts import drawing_from
from neuroae.utils.randomness import derive_seed
from small_evaluation import BUDGET, random_data

IDS = torch.arange(3)
with drawing_from(0):
    PLAIN = Linear(1, 8, 10).eval()


def test_a_defense_is_attacked_in_the_papers_modes() -> None:
    model = small_defense()
    attacks = attacks_from(model, BUDGET)
    assert [attack.name for attack in attacks] == ["W-NFGA identity", "W-NFGA smooth", "W-AIGA"]
    sources = [attack.crafting_model(Scoring(), IDS) for attack in attacks]
    assert [source.encoder.surrogate for source in sources[:2]] == ["identity", "smooth"]
    assert [source.autoencoder_identity for source in sources] == [False, False, True]
    assert all(source.classifier is model.classifier for source in sources)
    assert {attack.family for attack in attacks} == {"white-box"}
    (transfer,) = attacks_from(model, BUDGET, ["w-aiga"], transfer="other")
    assert (transfer.name, transfer.family) == ("W-AIGA from other", "PW-T")
    with pytest.raises(ValueError, match=r"mode is 'w-nfga', expected one of w-nfga-identity"):
        attacks_from(PLAIN, BUDGET, ["w-nfga"])


def test_a_plain_model_is_attacked_with_one_realization_unless_it_is_told_to_be_random() -> None:
    (attack,) = attacks_from(PLAIN, PGDSettings(realizations=40), random=False)
    assert (attack.name, attack.family, attack.settings) == (
        "PGD",
        "white-box",
        PGDSettings(realizations=1, selection=1),
    )
    (attack,) = attacks_from(PLAIN, PGDSettings(realizations=40), random=True)
    assert attack.settings == PGDSettings(realizations=40)
    (blackbox,) = attacks_from(PLAIN, BUDGET, transfer="adversarially trained", random=False)
    assert (blackbox.name, blackbox.family) == ("PGD from adversarially trained", "B-T")


def test_a_search_has_no_modes() -> None:
    (attack,) = attacks_from(small_defense(), SquareSettings(queries=5), method="Square")
    assert (attack.name, attack.family, attack.surrogate) == ("Square", "gradient-free", None)
    assert attack.passes == attack.settings.forwards == 2 * 5 * 10
    (still,) = attacks_from(PLAIN, SquareSettings(queries=5), random=False, method="Square")
    assert still.settings == SquareSettings(queries=5, draws=1, fresh=False)
    assert still.passes == 1 + 5


def test_a_search_tells_answers_apart_in_float32() -> None:
    (search,) = attacks_from(small_defense(), SquareSettings(queries=5), precision="bfloat16", method="Square")
    assert search.precision == "float32"
    assert {attack.precision for attack in attacks_from(small_defense(), BUDGET, precision="bfloat16")} == {"bfloat16"}


def test_methods_and_variants_are_named() -> None:
    (attack,) = attacks_from(small_defense(), APGDSettings(), ["w-aiga"], "bfloat16", "x", "ensemble", method="APGD")
    assert attack.name == "APGD W-AIGA ensemble from x"
    assert attack.precision == "bfloat16"


@pytest.mark.parametrize(
    ("variant", "kind", "realizations"),
    [("ensemble", Ensemble, 2), ("mean-field", MeanField, 1)],
)
def test_variants_are_of_the_source_with_its_gradient(variant: str, kind: type[nn.Module], realizations: int) -> None:
    (attack,) = attacks_from(small_defense(), BUDGET, ["w-aiga"], variant=variant)  # type: ignore[arg-type]
    model = attack.crafting_model(Scoring(draws=7), IDS)
    assert isinstance(model, kind)
    assert not model.training
    assert model.model.autoencoder_identity  # type: ignore[union-attr]
    selection = None if variant == "ensemble" else BUDGET.realizations
    assert attack.settings == replace(BUDGET, realizations=realizations, selection=selection)
    if isinstance(model, Ensemble):
        assert model.members == 7


def test_fixed_masks_hold_for_all_sources_but_those_that_draw_nothing() -> None:
    fixed = Scoring(1, deterministic=True)
    for attack in attacks_from(small_defense(), BUDGET, transfer="x"):
        model = attack.crafting_model(fixed, IDS)
        assert isinstance(model, FixedMasks)
        assert (model.seed, model.image_ids) == (derive_seed(0, "fixed masks"), IDS)
    (plain,) = attacks_from(PLAIN, BUDGET, random=False)
    assert plain.crafting_model(fixed, IDS) is PLAIN


@pytest.mark.parametrize(
    ("settings", "method"),
    [(BUDGET, pgd), (APGDSettings(0.1, 3, realizations=2), apgd), (SquareSettings(0.1, 3, 2), square)],
    ids=["pgd", "apgd", "square"],
)
def test_settings_decide_the_method_and_the_name_its_draws(settings, method) -> None:  # type: ignore[no-untyped-def]
    model, block = small_defense(), Block.of(random_data(4), torch.device("cpu"))
    progress: list[int] = []
    attack = Attack("some", model, settings)
    perturbed = craft(attack, model, block, Scoring(seed=5), progress.append)
    seed = derive_seed(5, "craft some")
    expected = method(model, block.images, block.labels, settings, seed=seed, image_ids=block.ids)
    assert torch.equal(perturbed.images, expected.images)
    assert sum(progress) == attack.passes * 4
    other = craft(replace(attack, name="other"), model, block, Scoring(seed=5))
    assert not torch.equal(perturbed.images, other.images)
    assert attack.identity()["method"] == method.__name__


def test_crafted_images_are_clipped_to_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    block, attack = Block.of(random_data(4), torch.device("cpu")), Attack("some", PLAIN, BUDGET)
    for offset, expected in ((2.0, 1.0), (-2.0, 0.0)):
        far = craft(attack, PLAIN, block, Scoring())._replace(images=block.images.double() + offset)
        monkeypatch.setattr(Attack, "craft", lambda *_, far=far: far)
        perturbed = craft(attack, PLAIN, block, Scoring()).images
        assert torch.equal(perturbed, torch.full_like(block.images, expected))
        monkeypatch.undo()


def test_pixels_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    block, attack = Block.of(random_data(4), torch.device("cpu")), Attack("some", PLAIN, BUDGET)
    broken = craft(attack, PLAIN, block, Scoring())
    broken.images[2] = torch.nan
    monkeypatch.setattr(Attack, "craft", lambda *_: broken)
    with pytest.raises(FloatingPointError, match="some made pixels that are not finite"):
        craft(attack, PLAIN, block, Scoring())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"settings": 7}, TypeError, "settings is a int, expected one of PGDSettings, APGDSettings, SquareSettings"),
        ({"precision": "float16"}, ValueError, "precision is 'float16'"),
        ({"variant": "mean"}, ValueError, "variant is 'mean', expected one of ensemble, mean-field"),
        ({"surrogate": "exact"}, ValueError, "surrogate is 'exact'"),
        ({"source": PLAIN, "surrogate": "smooth"}, ValueError, "source is a Linear, expected a Defense"),
        ({"source": PLAIN, "variant": "ensemble"}, ValueError, "source is a Linear, expected a Defense"),
        ({"source": small_defense().train()}, ValueError, "source is in training mode"),
    ],
    ids=["settings", "precision", "variant", "surrogate", "surrogate of a classifier", "its ensemble", "training"],
)
def test_what_makes_no_attack_is_refused(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Attack(**{"name": "some", "source": small_defense(), "settings": BUDGET} | arguments)  # type: ignore[arg-type]
