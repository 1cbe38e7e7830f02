"""Small models that a folder can hold."""

import torch

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.nn.classifiers import ResNet32


def small_model(kind: str) -> Defense | ResNet32:
    """Returns a defense or a classifier, with weights and statistics that differ from every initialization."""
    encoder = SparseEncoder(unit_atoms(12, 1, 3), stride=1, top_t=5, dropout_p=0.25, epsilon=0.1, beta=1.5, sigma=0.4)
    classifier = resnet32(10, 1, (0.3,), (0.4,))
    for parameter in classifier.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    classifier(torch.rand(4, 1, 8, 8))
    model = Defense(encoder, Decoder(12, 3, 1, (8, 8), 1), classifier) if kind == "defense" else classifier
    return model.eval()  # type: ignore[return-value]
