"""A defense of one's own, judged in a minute on handwritten digits: ``python examples/own_defense.py``.

The front end rounds pixels to four levels, which leaves no gradient and looks like robustness. The suite needs to know
nothing about that: it finds a way around the rounding and says how many images are really left.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroae
from neuroae.data import load_dataset

EPSILON = 0.2
EPOCHS = 12


class Rounding(nn.Module):
    """Four levels of gray."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 3).round() / 3


def train_defense() -> nn.Module:
    """Returns a small classifier behind the rounding, trained for a few seconds."""
    torch.manual_seed(0)
    train = load_dataset("digits", "train")
    model = nn.Sequential(Rounding(), nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train)).split(64):
            loss = F.cross_entropy(model(train.pixels()[rows]), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


if __name__ == "__main__":
    test = load_dataset("digits", "test").limited(100)
    print(neuroae.evaluate(train_defense(), test.pixels(), test.labels, epsilon=EPSILON, name="rounding"))
