"""Fingerprints are those of version 0.1, whichever module defines a class today."""

import torch
from torch import nn

from neuroae import Decoder, Defense, SparseConvTranspose2d, SparseEncoder
from neuroae.models.fingerprints import fingerprint

# The fingerprints of these models in version 0.1.
ENCODER = "b35b5745895d71269747741239bbc788973cdbf4f040e610df9548d7d6723791"
LAYER = "024683852861df094b4416a51e533327e25d6677bcaa077e0da647c9a3dd472e"
DEFENSE = "9913a0ecbee0bd4f4d15a7586775ccab77db2ad251ef59c683abf0953afe8898"


def encoder() -> SparseEncoder:
    atoms = torch.eye(48)[:20].reshape(20, 3, 4, 4)
    return SparseEncoder(atoms, stride=2, top_t=5, dropout_p=0.5, epsilon=8 / 255)


def fill(module: nn.Module) -> nn.Module:
    """Sets all parameters to 0.5."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    return module.eval()


def test_fingerprint_of_an_encoder() -> None:
    assert fingerprint(encoder()) == ENCODER


def test_fingerprint_of_a_layer() -> None:
    assert fingerprint(fill(SparseConvTranspose2d(20, 3, 4))) == LAYER


def test_fingerprint_of_a_defense_with_another_classifier() -> None:
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    model = Defense(encoder(), Decoder(20, 4, 2, 8, 3), classifier)
    assert fingerprint(fill(model)) == DEFENSE
