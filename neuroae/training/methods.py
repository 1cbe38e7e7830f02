"""The ways to train a model (paper, sections 2.3 and 5.1). Each leaves it in evaluation mode.

All take ``run``, where to keep checkpoints (none by default), and ``validation``, images to score after every epoch.
"""

from dataclasses import replace

from torch import nn

from ..contexts import frozen
from ..data import ImageSet
from ..defense import Defense
from ..encoder import check_integer
from .history import Epoch
from .loop import Run, fit
from .settings import TrainingSettings
from .tasks import Classification, FrozenAutoencoder, Regression, Supervised


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
