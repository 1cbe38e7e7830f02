"""The ways to train a model (paper, sections 2.3 and 5.1). Each leaves it in evaluation mode."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ..data import ImageSet
from ..defense import Defense
from .loop import Batch, Epoch, Objective, fit
from .settings import TrainingSettings


def train_plain(classifier: nn.Module, data: ImageSet, settings: TrainingSettings) -> list[Epoch]:
    """A classifier alone, by cross-entropy."""

    def objective(batch: Batch) -> Objective:
        return cross_entropy(classifier(batch.images), batch)

    return fit(classifier, objective, data, settings, "classifier")


def train_supervised(model: Defense, data: ImageSet, settings: TrainingSettings) -> list[Epoch]:
    """Decoder and classifier together, by cross-entropy: the nominal defense."""

    def objective(batch: Batch) -> Objective:
        return cross_entropy(model(batch.images, seed=batch.seed, image_ids=batch.ids), batch)

    return fit(model, objective, data, settings, "defense")


def train_unsupervised(
    model: Defense, data: ImageSet, settings: TrainingSettings, decoder_epochs: int = 50
) -> list[Epoch]:
    """The decoder by l2 regression to the image for ``decoder_epochs``, then the classifier on the frozen autoencoder.

    Returns the epochs of both, the decoder's first.
    """

    def regression(batch: Batch) -> Objective:
        return Objective(F.mse_loss(model.autoencode(batch.images, batch.seed, batch.ids).float(), batch.images))

    def classification(batch: Batch) -> Objective:
        with torch.no_grad():
            decoded = model.autoencode(batch.images, batch.seed, batch.ids)
        return cross_entropy(model.classifier(decoded), batch)

    first = replace(settings, epochs=decoder_epochs)
    history = fit(model.decoder, regression, data, first, "unsupervised decoder")
    history += fit(model.classifier, classification, data, settings, "its classifier")
    model.eval()
    return history


def cross_entropy(logits: torch.Tensor, batch: Batch) -> Objective:
    return Objective(F.cross_entropy(logits.float(), batch.labels), logits.detach())
