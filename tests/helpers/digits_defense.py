"""A small defense trained on the digits, for tests that compare attacks. Training takes a second on one core."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dictionaries import unit_atoms
from models import SmallDecoder
from neuroae import Defense, SparseEncoder
from neuroae.data import load_dataset

BUDGET = 3 / 16


@functools.cache
def digits_defense() -> Defense:
    """Returns the trained defense, in evaluation mode."""
    torch.manual_seed(0)
    encoder = SparseEncoder(unit_atoms(100, 1, 4), stride=2, top_t=12, dropout_p=0.5, epsilon=BUDGET, beta=0.5)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model = Defense(encoder, SmallDecoder(100, 1, 4, 2), classifier)
    images, labels = digits("train", 1297)
    parameters = [*model.decoder.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(400):
        batch = torch.randint(len(images), (128,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    return model.eval()


def digits(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Returns the first images of a split, and their labels."""
    data = load_dataset("digits", split).take(slice(count))
    return data.pixels(), data.labels
