"""The three ways to train a model (paper, sections 2.3 and 5.1), and the tasks whose losses they minimize."""

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


def train_plain(
    classifier: nn.Module,
    data: ImageSet,
    settings: TrainingSettings,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """Trains a classifier alone, by cross-entropy, and leaves it in evaluation mode.

    Args:
        classifier: Maps images (B, C, H, W) in [0, 1] to logits (B, classes).
        data: The training images.
        settings: Optimizer, schedule and seed.
        run: Where checkpoints are saved; None saves none.
        validation: Images that are scored after every epoch, and not learned from.

    Returns:
        The epochs.

    Raises:
        BlockingIOError, FloatingPointError, TypeError, ValueError: See ``loop.fit``.
    """
    return fit(Classification(classifier), data, settings, "classifier", run, validation)


def train_supervised(
    model: Defense,
    data: ImageSet,
    settings: TrainingSettings,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """Trains decoder and classifier together, by cross-entropy: the paper's nominal defense.

    The model is left in evaluation mode.

    Args:
        model: The defense.
        data, settings, run, validation: See ``train_plain``.

    Returns:
        The epochs.

    Raises:
        BlockingIOError, FloatingPointError, TypeError, ValueError: See ``loop.fit``.
    """
    return fit(Supervised(model), data, settings, "defense", run, validation)


def train_unsupervised(
    model: Defense,
    data: ImageSet,
    settings: TrainingSettings,
    decoder_epochs: int = 50,
    run: Run | None = None,
    validation: ImageSet | None = None,
) -> list[Epoch]:
    """Trains the decoder by l2 regression to the image, then the classifier behind the frozen autoencoder.

    The model is left in evaluation mode.

    Args:
        model: The defense.
        data, settings, run, validation: See ``train_plain``. ``settings.epochs`` is for the classifier.
        decoder_epochs: The number of epochs for the decoder.

    Returns:
        The epochs of the decoder, then those of the classifier.

    Raises:
        BlockingIOError, FloatingPointError, TypeError, ValueError: See ``loop.fit``.
    """
    check_integer("decoder_epochs", decoder_epochs, 1)
    decoder_settings = replace(settings, epochs=decoder_epochs)
    history = fit(Regression(model), data, decoder_settings, "decoder", run, validation)
    with frozen(model.decoder):
        history += fit(FrozenAutoencoder(model), data, settings, "classifier", run, validation)
    model.eval()
    return history


class Objective(NamedTuple):
    """What a task computes for a batch.

    Attributes:
        loss: The mean loss, a scalar.
        logits: (B, classes), or None if the task does not classify.
    """

    loss: Tensor
    logits: Tensor | None = None


class Classification(nn.Module):
    """Cross-entropy of a classifier alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int | Tensor) -> Objective:
        return cross_entropy(self.classifier(images), labels)


class Supervised(nn.Module):
    """Cross-entropy of the defense, whose decoder and classifier learn together (paper, section 2.3)."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int | Tensor) -> Objective:
        return cross_entropy(self.model(images, seed=seed, image_ids=ids), labels)


class Regression(nn.Module):
    """Mean squared difference between decoded and original image, from which the decoder learns without labels."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int | Tensor) -> Objective:
        decoded = self.decoder(self.encoder.encode(images, 1, seed, ids))
        return Objective(F.mse_loss(decoded.float(), images))


class FrozenAutoencoder(nn.Module):
    """Cross-entropy of the classifier behind an autoencoder that does not change."""

    def __init__(self, model: Defense) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> "FrozenAutoencoder":
        super().train(mode)
        self.model.decoder.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, seed: int | Tensor) -> Objective:
        with torch.no_grad():
            decoded = self.model.autoencode(images, seed, ids)
        return cross_entropy(self.model.classifier(decoded), labels)


def cross_entropy(output: object, labels: Tensor) -> Objective:
    """Returns the mean cross-entropy of a model's output.

    Raises:
        TypeError: The output is not a tensor.
        ValueError: The output's shape is not (B, classes).
    """
    logits = require_tensor(output)
    check_logits(logits, len(labels), 0)
    return Objective(F.cross_entropy(logits.float(), labels), logits.detach())
