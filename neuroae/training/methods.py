"""The ways to train a model (paper, sections 2.3 and 5.1). Each leaves it in evaluation mode.

All take ``run``, where to keep checkpoints (none by default), and ``validation``, images to score after every epoch.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.checks import check_logits, require_tensor
from ..data import ImageSet
from ..nn.defense import Defense
from ..utils.contexts import frozen
from ..utils.validation import check_integer
from .history import Epoch
from .loop import Run, fit
from .settings import TrainingSettings


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
    found = require_tensor(logits)
    check_logits(found, len(labels), 0)
    return Objective(F.cross_entropy(found.float(), labels), found.detach())


def train_plain(
    classifier: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """A classifier alone, by cross-entropy."""
    return fit(Classification(classifier), data, settings, "classifier", run, validation)


def train_supervised(
    model: Defense,
    data: ImageSet,
    settings: TrainingSettings,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """Decoder and classifier together, by cross-entropy: the nominal defense."""
    return fit(Supervised(model), data, settings, "defense", run, validation)


def train_unsupervised(
    model: Defense,
    data: ImageSet,
    settings: TrainingSettings,
    decoder_epochs: int = 50,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """The decoder by l2 regression to the image for ``decoder_epochs``, then the classifier on the frozen autoencoder.

    Returns the epochs of both, the decoder's first.
    """
    check_integer("decoder_epochs", decoder_epochs, 1)
    first = replace(settings, epochs=decoder_epochs)
    history = fit(Regression(model), data, first, "decoder", run, validation)
    with frozen(model.decoder):
        history += fit(FrozenAutoencoder(model), data, settings, "classifier", run, validation)
    model.eval()
    return history
