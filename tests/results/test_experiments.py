"""The experiments: the attacks of the paper with its sources and settings, and those of committed evaluations."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluation_folder import CLEAN_IDENTITY, AttackCase, write_evaluation
from models import random_images
from neuroae import Defense, DropoutResNet32, FrontEndClassifier, resnet32
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings, eot_gradient
from neuroae.data import ImageSet
from neuroae.evaluation import Attack, Evaluation, Scoring
from neuroae.evaluation.attack import is_random_by_type
from neuroae.models import load_pretrained
from neuroae.nn.classifiers import ResNet32
from neuroae.reports import Report
from neuroae.utils.files import load_json, save_tensors
from results.entries import BEYOND, ENTRIES, LOWEST
from results.experiments import EXPERIMENTS
from results.inputs import PUBLISHED_TITLES, SHIPPED_MODELS, TRAINED_MODELS, load_models
from results.paper import variant
from results.queue import QUEUE
from results.tables import Measured, row_named
from results_data import small_cifar10_defense

PAPER = PGDSettings(epsilon=8 / 255, step_size=1 / 225, steps=20, restarts=1, realizations=40, average="normalized")
ONE_DRAW = PGDSettings(realizations=1, selection=1)
# Crafted on what draws nothing, and chosen by what does.
TRANSFERRED = PGDSettings(realizations=1, selection=40)


# Their sources' fingerprints name attributes of the encoder that had other names when they were evaluated.
ABLATED = ("selection, fixed cut", "selection, straight-through top T")
# A suite's stages follow from a probe of the images, so the suites are commands of their own.
SUITES = ("autoattack", "suite")
FOLDERS = sorted(
    path.parent
    for path in (Path(__file__).parents[2] / "results").glob("*/manifest.json")
    if path.parent.name not in SUITES
)
Models = Mapping[str, nn.Module]
# Trained roles whose models have no defense.
CLASSIFIERS = ("r_fgsm", "imagenette_undefended", "imagenette_r_fgsm", "k_sparse")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the folders of small models by their role."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    for name in ("defense", "unsupervised", "unquantized"):
        small_cifar10_defense(quantize=name != "unquantized").save_pretrained(folder / name)
    resnet32().eval().save_pretrained(folder / "undefended")
    paths = {role: folder / role for role in SHIPPED_MODELS}
    for role in TRAINED_MODELS:
        paths[role] = folder / ("undefended" if role in CLASSIFIERS else "defense")
    for role in PUBLISHED_TITLES:
        classifier = DropoutResNet32() if role == "published_dropout" else resnet32()
        paths[role] = folder / f"{role}.safetensors"
        save_tensors(paths[role], classifier.state_dict())
    return paths


@pytest.fixture(scope="module")
def models(paths: dict[str, Path]) -> Models:
    return load_models(paths, torch.device("cpu"))


def attacks_of(models: Models, experiment: str) -> dict[str, Attack]:
    return {attack.name: attack for attack in EXPERIMENTS[experiment].attacks(models)}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_can_be_evaluated(models: Models, experiment: str) -> None:
    """The names are unique, and scoring accepts the attacked model."""
    description = EXPERIMENTS[experiment]
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet("some", images, torch.arange(2), torch.arange(2), tuple("abcdefghij"))
    evaluation = Evaluation(models[description.attacked], data, description.attacks(models), block=description.block)
    expected = FrontEndClassifier if description.attacked == "published_blur" else ResNet32
    if description.attacked not in (*CLASSIFIERS, *PUBLISHED_TITLES, "undefended"):
        expected = Defense
    assert isinstance(evaluation.model, expected)
    assert description.num_images in (100, 200, 500, 1000)


def test_table1_is_the_white_box_both_transfers_and_the_classifier(models: Models) -> None:
    attacks = attacks_of(models, "table1")
    families = [(attack.family, attack.transfer) for attack in attacks.values()]
    pw_t = [("PW-T", source) for source in ["unsupervised"] * 3 + ["unquantized"] * 2]
    assert families == [("white-box", "")] * 2 + pw_t + [("B-T", "adversarially trained")]
    assert [attacks[name].source is models["defense"] for name in attacks][:2] == [True, True]
    for name, attack in attacks.items():
        assert attack.settings == (TRANSFERRED if attack.family == "B-T" else PAPER), name
        assert attack.precision == ("float32" if attack.family == "B-T" else "bfloat16")
        assert attack.variant is None


@pytest.mark.parametrize("source", ["unsupervised", "unquantized"])
def test_pw_t_follows_every_gradient_once(models: Models, source: str) -> None:
    """On the same draws, no two attacks have the same gradient, and no different gradient is left out."""
    images, labels, ids = random_images(3, channels=3, size=32)

    def gradient(model: nn.Module) -> Tensor:
        return eot_gradient(model, images, labels, realizations=3, seed=5, image_ids=ids).gradient

    attacks = [attack for attack in attacks_of(models, "table1").values() if attack.transfer == source]
    gradients = [gradient(attack.crafting_model(Scoring(), ids)) for attack in attacks]
    assert not any(torch.equal(one, other) for one, other in combinations(gradients, 2))
    for surrogate in ("identity", "smooth", "autoencoder-identity"):
        expected = gradient(attacks[0].source.with_surrogate(surrogate))  # type: ignore[operator]
        assert sum(torch.equal(each, expected) for each in gradients) == 1
    assert ("W-NFGA from unquantized" in {attack.name for attack in attacks}) == (source == "unquantized")


@pytest.mark.parametrize(
    ("experiment", "roles"),
    [
        ("table6", ("defense", "unquantized")),
        ("beyond", ("defense", "unquantized")),
        ("table3-undefended", ("undefended",)),
        ("selection-unsupervised", ("unsupervised",)),
        ("table2-no-top-t", ("no_top_t", "unsupervised", "unquantized")),
        ("table2-no-top-t-us", ("no_top_t", "no_dropout_us", "no_top_t_us")),
        ("table2-unsupervised", ("unsupervised",)),
        ("table4-paper", ("imagenette", "imagenette_us")),
        ("table5-blur", ("published_blur", "unsupervised", "unquantized")),
    ],
)
def test_experiments_load_only_the_models_that_they_use(
    models: Models, experiment: str, roles: tuple[str, ...]
) -> None:
    description = EXPERIMENTS[experiment]
    assert description.roles == roles
    few = {role: models[role] for role in roles}
    assert [attack.name for attack in description.attacks(few)] == list(attacks_of(models, experiment))


def test_table2_has_the_selection_and_transfers_from_all_four_unsupervised_defenses(models: Models) -> None:
    attacks = attacks_of(models, "table2-no-dropout")
    others = attacks_of(models, "table2-no-dropout-us")
    kinds = [(attack.followed_surrogate, attack.transfer) for attack in [*attacks.values(), *others.values()]]
    assert kinds == [("smooth", ""), ("autoencoder-identity", ""), ("selection", "")] + [
        (surrogate, source)
        for source in ("unsupervised", "unquantized", "no dropout", "no top t")
        for surrogate in ("smooth", "autoencoder-identity")
    ]
    for name, attack in (attacks | others).items():
        if attack.followed_surrogate != "selection":
            assert attack.settings == PAPER, name


def test_attacks_on_the_unsupervised_defense_are_the_transfers_of_other_rows(models: Models) -> None:
    own, others = (attacks_of(models, name) for name in ("table2-unsupervised", "table2-complete"))
    shared = own.keys() & others.keys() - {"selection"}
    assert shared == {"W-NFGA smooth from unsupervised", "W-AIGA from unsupervised"}
    assert own.keys() - shared == {"selection"}
    for name in shared:
        assert own[name].source is models["unsupervised"]
        assert own[name].identity() == others[name].identity()


def test_defenses_without_dropout_get_one_draw_a_gradient() -> None:
    model = small_cifar10_defense()
    model.encoder.dropout_p = 0.0
    attacks = {attack.name: attack.settings for attack in variant(model, model, small_cifar10_defense())}
    assert {name for name, settings in attacks.items() if settings.realizations == 1} == {
        "W-NFGA smooth",
        "selection",
        "W-NFGA smooth from unsupervised",
        "W-AIGA from unsupervised",
    }


def test_table4_attacks_at_the_papers_budgets(models: Models) -> None:
    for experiment, realizations in {
        "table4-undefended": 1,
        "table4-r-fgsm": 1,
        "table4-selection": 2,
        "table4-paper": 10,
    }.items():
        attacks = attacks_of(models, experiment)
        budgets = [255 * attack.settings.epsilon for attack in attacks.values()]  # type: ignore[union-attr]
        assert sorted({round(budget, 6) for budget in budgets}) == [2, 4, 8]
        assert {attack.settings.realizations for attack in attacks.values()} == {realizations}  # type: ignore[union-attr]
        assert EXPERIMENTS[experiment].dataset == "imagenette"


def test_every_trained_role_is_in_the_queue_and_used() -> None:
    used = {role for experiment in EXPERIMENTS.values() for role in experiment.roles}
    assert used == {*SHIPPED_MODELS, *TRAINED_MODELS, *PUBLISHED_TITLES}
    assert set(TRAINED_MODELS.values()) == {training.name for training in QUEUE}


def test_precisions_differ_in_nothing_else(models: Models) -> None:
    first, second = attacks_of(models, "precision").values()
    assert (first.precision, second.precision) == ("float32", "bfloat16")
    assert first.settings == second.settings == PAPER
    assert first.source is second.source
    assert first.surrogate == second.surrogate == "smooth"


def test_table6_raises_one_setting_at_a_time(models: Models) -> None:
    attacks = attacks_of(models, "table6")
    settings = {name.split(":")[0]: attack.settings for name, attack in attacks.items()}
    assert settings == {
        "default": PAPER,
        "N_S 100": replace(PAPER, steps=100),
        "N_E 100": replace(PAPER, realizations=100),
        "N_R 10": replace(PAPER, restarts=10),
    }
    kinds = {(attack.surrogate, attack.transfer, attack.precision) for attack in attacks.values()}
    assert kinds == {("autoencoder-identity", "unquantized", "bfloat16")}


def test_classifiers_get_one_draw_a_gradient(models: Models) -> None:
    (plain,) = attacks_of(models, "table3-undefended").values()
    default, worst = attacks_of(models, "table3-adversarial").values()
    assert plain.settings == default.settings == ONE_DRAW
    assert worst.settings == PGDSettings(steps=100, loss="margin", realizations=1, selection=1)


def test_beyond_the_paper_every_kind_of_attack_is_tried(models: Models) -> None:
    attacks = list(attacks_of(models, "beyond").values())
    variants = {(attack.variant, attack.transfer): attack.settings for attack in attacks if attack.variant}
    assert variants == {
        (variant, transfer): settings
        for variant, settings in {"ensemble": replace(PAPER, realizations=4), "mean-field": TRANSFERRED}.items()
        for transfer in ("", "unquantized")
    }
    kinds = [type(attack.settings) for attack in attacks]
    assert kinds.count(APGDSettings) == 2
    ((square, precision),) = (
        (attack.settings, attack.precision) for attack in attacks if isinstance(attack.settings, SquareSettings)
    )
    assert (square.queries, square.draws, precision) == (1000, 10, "float32")
    losses = {getattr(attack.settings, "loss", None) for attack in attacks}
    assert "margin" in losses
    assert {attack.transfer for attack in attacks} == {"", "unquantized"}


def test_weights_are_asked_for_where_they_are_read(models: Models) -> None:
    without = {role: model for role, model in models.items() if role not in PUBLISHED_TITLES}
    needing = {"table1", "table3-adversarial", "crosscheck"}
    needing |= {"table3-r-fgsm", "table3-trades", "table5-dropout", "table5-blur"}
    assert {name for name, each in EXPERIMENTS.items() if PUBLISHED_TITLES.keys() & set(each.roles)} == needing
    for experiment in EXPERIMENTS.keys() - needing:
        assert attacks_of(without, experiment).keys() == attacks_of(models, experiment).keys()


def test_every_model_is_put_on_the_device(paths: dict[str, Path]) -> None:
    for model in load_models(paths, torch.device("meta")).values():
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_foreign_weights_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        load_models({"adversarial": tmp_path / "broken.safetensors"}, torch.device("cpu"))


@pytest.fixture(scope="module")
def shipped(models: Models) -> Models:
    """Returns the shipped models, and others instead of those whose weights do not ship."""
    return models | {role: load_pretrained(name)[0] for role, name in SHIPPED_MODELS.items()}


def decisive(identity: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of an attack, without what the device or the adversarial weights decide.

    Earlier versions wrote no chunk and no selection where these were at their defaults.
    """
    parts: dict[str, Any] = json.loads(json.dumps(identity))
    settings = parts.get("settings", {})
    settings.pop("chunk", None)
    if settings.get("selection") is None:
        settings.pop("selection", None)
    if parts["family"] == "B-T":
        parts["source"].pop("fingerprint")
    return parts


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_evaluation_is_the_one_that_its_experiment_describes(shipped: Models, folder: Path) -> None:
    """The same attacks in the same order, on the same models: the experiment would continue in its folder."""
    experiment, manifest = EXPERIMENTS[folder.name], load_json(folder / "manifest.json")["identity"]
    attacks = experiment.attacks(shipped)
    assert manifest["order"] == ["clean", *(attack.name for attack in attacks)]
    assert manifest["data"]["images"] == experiment.num_images
    assert manifest["block"] == experiment.block
    scoring = {name: manifest["scoring"][name] for name in ("draws", "seed", "deterministic")}
    draws = 10 if is_random_by_type(shipped[experiment.attacked]) else 1
    assert scoring == {"draws": draws, "seed": 0, "deterministic": False}
    for attack in attacks:
        expected, actual = (decisive(each) for each in (manifest["attacks"][attack.name], attack.identity()))
        ships = (getattr(attack, "transfer", "") or experiment.attacked) in SHIPPED_MODELS
        if (not ships and attack.family != "B-T") or attack.name in ABLATED:
            assert expected["source"].pop("fingerprint") != actual["source"].pop("fingerprint")
        if not ships:  # the width follows from the atoms
            assert (expected.pop("selection_width", None) is None) == (actual.pop("selection_width", None) is None)
        assert actual == expected, attack.name


@pytest.mark.parametrize(
    "experiment", sorted({name for one in ENTRIES for name in one.experiments} & EXPERIMENTS.keys())
)
def test_every_row_of_the_tables_is_one_that_its_experiment_reports(
    models: Models, tmp_path: Path, experiment: str
) -> None:
    """The names are those of a report on records written by hand, of attacks with these identities."""
    attacks = {"clean": AttackCase([True, True], CLEAN_IDENTITY)}
    attacks |= {
        name: AttackCase([True, False], attack.identity()) for name, attack in attacks_of(models, experiment).items()
    }
    reported = Report.of(write_evaluation(tmp_path, attacks))
    measured = {row.attack: Measured(row.vote.value, 0, 1, 2) for row in [*reported.rows, *reported.joint]}
    for one in ENTRIES:
        assert experiment not in one.experiments or one.row == LOWEST or row_named(measured, one.row)


def test_the_tables_have_every_attack_beyond_the_paper(models: Models) -> None:
    assert set(BEYOND) == attacks_of(models, "beyond").keys()
