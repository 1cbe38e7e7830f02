"""Presets of the data sets, and the models with these settings."""

from dataclasses import replace

import pytest
import torch

from dictionaries import unit_atoms
from neuroae.models.presets import PRESETS, make_classifier, make_defense

ODD = replace(
    PRESETS["digits"],
    mean=(0.25, 0.5),
    std=(0.125, 0.75),
    stride=3,
    top_t=7,
    dropout_p=0.375,
    beta=2.25,
    quantize=False,
    epsilon=0.0625,
)


def test_the_presets_of_the_papers_data_sets_are_the_papers() -> None:
    cifar10, imagenette = PRESETS["cifar10"], PRESETS["imagenette"]
    assert (cifar10.patch, cifar10.stride, cifar10.atoms, cifar10.regularization) == (4, 2, 500, 1)
    assert (imagenette.patch, imagenette.stride, imagenette.atoms, imagenette.regularization) == (8, 4, 1000, 0.5)
    assert [(each.iterations, each.dictionary_batch) for each in (cifar10, imagenette)] == [(1000, 5), (10_000, 5)]
    for each in (cifar10, imagenette):
        assert (each.top_t, each.dropout_p, each.beta, each.quantize) == (50, 0.95, 3, True)
        assert (each.epsilon, each.step_size, each.augment) == (8 / 255, 1 / 225, True)
    assert [(each.epochs, each.learning_rate) for each in (cifar10, imagenette)] == [(70, 0.05), (100, 0.05)]
    assert cifar10.decoder_epochs == 50
    # As published with CIFAR-10's and ImageNet's models.
    assert (cifar10.mean, cifar10.std) == ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    assert (imagenette.mean, imagenette.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (cifar10.classifier, imagenette.classifier) == ("resnet32", "efficientnet-b0")
    assert PRESETS["image-folder"] == replace(imagenette, classifier="resnet32")


def test_a_defense_has_the_settings_of_its_preset_and_the_size_of_its_atoms() -> None:
    atoms = unit_atoms(20, 2, 5)
    model = make_defense(ODD, atoms, (12, 16), 6, seed=1)
    encoder, decoder, classifier = model.encoder, model.decoder, model.classifier
    assert torch.equal(encoder.atoms, atoms)
    for name in ("stride", "top_t", "dropout_p", "epsilon", "beta", "quantize"):
        assert getattr(encoder, name) == getattr(ODD, name), name
    assert (encoder.signed, encoder.surrogate, encoder.sigma) == (True, "smooth", 0.25)
    torch.testing.assert_close(encoder.dead_zone, 2.25 * 0.0625 * atoms.abs().sum((1, 2, 3)))
    assert classifier.mean.flatten().tolist() == [0.25, 0.5]
    assert classifier.std.flatten().tolist() == [0.125, 0.75]
    images = torch.rand(3, 2, 12, 16)
    assert decoder(encoder.encode(images)).shape == images.shape
    assert model(images).shape == (3, 6)


@pytest.mark.parametrize("part", ["decoder", "classifier"])
def test_weights_follow_from_the_seed_alone(part: str) -> None:
    first, same, other = (
        make_defense(ODD, unit_atoms(20, 2, 5), (12, 16), 6, seed).get_submodule(part).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_classifier_of_a_defense_has_the_weights_of_the_classifier_alone() -> None:
    part = make_defense(ODD, unit_atoms(20, 2, 5), (12, 16), 6, seed=1).classifier.state_dict()
    alone = make_classifier(ODD, 6, seed=1).state_dict()
    assert all(torch.equal(tensor, part[name]) for name, tensor in alone.items())
