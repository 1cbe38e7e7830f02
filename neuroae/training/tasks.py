"""What is minimized, each as a module from a batch to its loss, so that several processes can share it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.checks import answered, check_logits
from ..defense import Defense


class Objective(NamedTuple):
    """Mean loss of a batch, a scalar, and its logits (B, classes) where there are any."""

    loss: Tensor
    logits: Tensor | None = None


class Classification(nn.Module):
    """Cross-entropy of a classifier alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        return cross_entropy(self.classifier(images), labels)


class Supervised(nn.Module):
    """Cross-entropy of the whole defense: decoder and classifier learn together (paper, section 2.3)."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        return cross_entropy(self.model(images, seed=seed, image_ids=ids), labels)


class Regression(nn.Module):
    """Mean squared difference of the decoded image to the image: the decoder learns without labels."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        decoded = self.decoder(self.encoder.encode(images, 1, seed, ids))
        return Objective(F.mse_loss(decoded.float(), images))


class FrozenAutoencoder(nn.Module):
    """Cross-entropy of the classifier behind an autoencoder that stays as it is."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> "FrozenAutoencoder":
        super().train(mode)
        self.model.decoder.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int) -> Objective:
        with torch.no_grad():
            decoded = self.model.autoencode(images, seed, ids)
        return cross_entropy(self.model.classifier(decoded), labels)


def cross_entropy(logits: object, labels: Tensor) -> Objective:
    """Of a model's answer; TypeError or ValueError where that is not (B, classes)."""
    found = answered(logits)
    check_logits(found, len(labels), 0)
    return Objective(F.cross_entropy(found.float(), labels), found.detach())
