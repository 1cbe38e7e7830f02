"""Models as configurations: what they return, and the same model from it."""

import json

import pytest
import torch
from torch import nn

from dictionaries import unit_atoms
from models import small_defense
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from saved_models import small_model


def test_an_encoder_comes_back_from_its_configuration() -> None:
    atoms = unit_atoms(12, 1, 3)
    settings = {
        "stride": 1,
        "top_t": 5,
        "dropout_p": 0.25,
        "epsilon": 0.1,
        "beta": 1.5,
        "quantize": False,
        "signed": False,
        "surrogate": "selection",
        "sigma": 0.4,
        "selection_width": 0.3,
    }
    encoder = SparseEncoder(atoms, **settings)  # type: ignore[arg-type]
    assert encoder.config() == settings
    again = SparseEncoder.from_config(json.loads(json.dumps(encoder.config())), atoms)
    assert again.extra_repr() == encoder.extra_repr()
    assert torch.equal(again.atoms, atoms)


def test_a_decoder_comes_back_from_its_configuration() -> None:
    decoder = Decoder(12, 3, 1, (8, 10), 2, resize=True, clamp_width=4.0)
    again = Decoder.from_config(json.loads(json.dumps(decoder.config())))
    assert again.config() == decoder.config()
    assert again.extra_repr() == decoder.extra_repr()
    again.load_state_dict(decoder.state_dict())


def test_a_classifier_comes_back_from_its_configuration() -> None:
    classifier = resnet32(7, 2, (0.25, 0.5), (0.125, 0.75))
    again = type(classifier).from_config(json.loads(json.dumps(classifier.config())))
    assert again.config() == classifier.config()
    again.load_state_dict(classifier.state_dict())


@pytest.mark.parametrize("surrogate", ["smooth", "selection", "autoencoder-identity"])
def test_a_defense_comes_back_with_its_gradient(surrogate: str) -> None:
    model = small_model("defense").with_surrogate(surrogate)  # type: ignore[operator]
    config = json.loads(json.dumps(model.config()))
    assert config["encoder"]["surrogate"] == surrogate
    again = Defense.from_config(config, model.encoder.atoms).eval()
    again.load_state_dict(model.state_dict())
    assert again.config() == config
    results = []
    for each in (model, again):
        images = torch.full((2, 1, 8, 8), 0.5).requires_grad_()
        logits = each(images, seed=1)
        results += [logits, *torch.autograd.grad(logits.square().sum(), images)]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


def test_parts_of_other_classes_have_no_configuration() -> None:
    with pytest.raises(TypeError, match="decoder and classifier are SmallDecoder and Linear, expected Decoder"):
        small_defense().config()
    model = small_model("defense")
    model.classifier = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="decoder and classifier are Decoder and Linear"):
        model.config()
