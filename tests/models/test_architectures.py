"""Folders of the other models than a defense and its ResNet-32: what they hold, say and refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dictionaries import unit_atoms
from neuroae import (
    Decoder,
    Defense,
    DropoutResNet32,
    EfficientNetB0,
    FrontEndClassifier,
    GaussianBlur,
    KSparseAutoencoder,
    ResNet32,
    SparseEncoder,
    resnet32,
)
from neuroae.attacks import PGDSettings
from neuroae.evaluation import attacks_from
from neuroae.models import load_pretrained
from neuroae.models.description import describe
from neuroae.models.fingerprints import fingerprint
from neuroae.utils.files import load_json, save_json

SIDE = 12


def defense_with_efficientnet() -> Defense:
    encoder = SparseEncoder(unit_atoms(12, 3, 4), stride=2, top_t=5, dropout_p=0.25)
    decoder = Decoder(12, 3, 1, (SIDE, SIDE), 3, resize=True)
    return Defense(encoder, decoder, EfficientNetB0(7, 3, (0.3,) * 3, (0.4,) * 3))


# Each model with a phrase of its card.
MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (
        lambda: DropoutResNet32(7, 3, (0.3,) * 3, (0.4,) * 3, filters=20, dropout_p=0.75),
        "The ResNet-32 with dropout in its first layer of",
    ),
    "EfficientNet": (lambda: EfficientNetB0(7), "The EfficientNet-B0 of"),
    "k-sparse": (
        lambda: FrontEndClassifier(KSparseAutoencoder(3, SIDE, 30, 4), resnet32(7)),
        "behind a k-sparse autoencoder instead of the defense",
    ),
    "blur": (
        lambda: FrontEndClassifier(GaussianBlur(0.75, 3), resnet32(7)),
        "behind a Gaussian blur instead of the defense",
    ),
    "defense": (defense_with_efficientnet, "a sparse randomized autoencoder with an EfficientNet-B0 behind it"),
}


def make(name: str) -> nn.Module:
    """Returns a model whose weights and statistics differ from every initialization, in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name][0]()
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    model(torch.rand(4, 3, SIDE, SIDE))
    return model.eval()


def logits_of(model: nn.Module) -> Tensor:
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    arguments: dict[str, Any] = {}
    if isinstance(model, Defense | DropoutResNet32):
        arguments = {"seed": 3, "image_ids": torch.tensor([1, 5, 2])}
    return model(images, **arguments).detach()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    model = make(name)
    model.save_pretrained(tmp_path / "model", {"run": {"method": "plain"}})  # type: ignore[operator]
    loaded = type(model).from_pretrained(tmp_path / "model")  # type: ignore[attr-defined]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert torch.equal(logits_of(loaded), logits_of(model))
    assert describe(loaded) == describe(model)
    assert fingerprint(loaded) == fingerprint(model)
    card = " ".join((tmp_path / "model" / "README.md").read_text(encoding="utf-8").split())
    assert MODELS[name][1] in card
    assert f"from neuroae import {type(model).__name__}" in card
    assert ("no protection" in card) == (name != "defense")


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_in_the_fingerprint_and_come_back_from_json(name: str) -> None:
    model = make(name)
    config = json.loads(json.dumps(model.config()))  # type: ignore[operator]
    again = Defense.from_config(config, model.encoder.atoms) if isinstance(model, Defense) else None  # type: ignore[arg-type]
    assert again is None or again.config() == config
    twin = MODELS[name][0]().eval()
    twin.load_state_dict(model.state_dict())
    assert fingerprint(twin) == fingerprint(model)
    changed = {
        "dropout": lambda: setattr(twin, "dropout_p", 0.5),
        "EfficientNet": lambda: setattr(twin, "std", twin.std * 2),
        "k-sparse": lambda: setattr(twin.front_end, "k", 5),
        "blur": lambda: setattr(twin.front_end, "sigma", 0.5),
        "defense": lambda: setattr(twin.encoder, "top_t", 4),
    }
    changed[name]()
    assert fingerprint(twin) != fingerprint(model)


@pytest.mark.parametrize(
    ("name", "part", "field", "value", "message"),
    [
        ("dropout", "classifier", "dropout_p", 1.5, r"dropout_p is 1\.5"),
        ("dropout", "classifier", "filters", 16, "classifier.filters is 16, but conv1.weight has shape"),
        ("dropout", "classifier", "name", "resnet32", "classifier.filters is unknown"),
        ("EfficientNet", "classifier", "num_classes", 8, "classifier.num_classes is 8"),
        ("EfficientNet", "classifier", "name", "b1", "classifier is 'b1', expected 'resnet32' or"),
        ("k-sparse", "front_end", "channels", 40, "front_end.channels is 40"),
        ("k-sparse", "front_end", "k", 31, "k is 31"),
        ("k-sparse", "front_end", "name", "median", "front_end is 'median', expected"),
        ("blur", "front_end", "sigma", -1, "sigma is -1"),
        ("blur", "front_end", "kernel_size", 5, "front_end.kernel_size is 5"),
    ],
    ids=lambda value: str(value).replace("[", "("),
)
def test_a_damaged_configuration_is_refused(
    tmp_path: Path, name: str, part: str, field: str, value: object, message: str
) -> None:
    make(name).save_pretrained(tmp_path)  # type: ignore[operator]
    config = load_json(tmp_path / "config.json")
    config[part][field] = value
    save_json(tmp_path / "config.json", config)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_parts_that_draw_stand_alone() -> None:
    random = FrontEndClassifier(GaussianBlur(), DropoutResNet32(7))
    with pytest.raises(TypeError, match="classifier is a DropoutResNet32, which draws"):
        describe(random)
    with pytest.raises(TypeError, match="GaussianBlur and DropoutResNet32"):
        random.config()


@pytest.mark.parametrize(
    ("name", "realizations"), [("dropout", 40), ("EfficientNet", 1), ("k-sparse", 1), ("blur", 1)]
)
def test_attacks_average_where_the_model_draws(name: str, realizations: int) -> None:
    (attack,) = attacks_from(make(name), PGDSettings())
    assert attack.settings.realizations == realizations  # type: ignore[union-attr]


def test_adversarially_trained_models_say_so(tmp_path: Path) -> None:
    model = resnet32(7).eval()
    model.save_pretrained(tmp_path, {"run": {"method": "trades"}})
    card = " ".join((tmp_path / "README.md").read_text(encoding="utf-8").split())
    assert "It was trained on adversarial images (TRADES)." in card
    assert "no protection" not in card
    assert type(load_pretrained(tmp_path)[0]) is ResNet32
