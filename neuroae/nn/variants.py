"""Modules around a random model, for attacks and for debugging."""

import math

import torch
from torch import Tensor, nn

from ..utils.contexts import drawing_from
from ..utils.modules import Wrapper, takes_seeds
from ..utils.validation import check_integer
from .defense import Defense, is_plain, share


class Ensemble(nn.Module):
    """The ensemble as deployed: the log of the mean softmax output of several realizations (paper, eq. 8).

    One realization of this module is an ensemble, so its gradient goes through the mean, unlike in attacks on single
    realizations. Memory grows with the number of members, which are in one graph.

    Args:
        model: The defense whose realizations vote.
        members: The number of realizations in an ensemble, E.
    """

    def __init__(self, model: Defense, members: int = 10) -> None:
        super().__init__()
        check_defense(model)
        check_integer("members", members, 1)
        self.training = model.training
        self.model = model
        self.members = members

    def forward(
        self,
        images: Tensor,
        realizations: int | None = None,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> Tensor:
        """Returns log-probabilities (B, classes), or (realizations, B, classes).

        Each realization averages ``members`` draws of its own. Takes the arguments of ``Defense.forward``.
        """
        count = 1 if realizations is None else realizations
        logits = self.model(images, realizations=count * self.members, seed=seed, image_ids=image_ids)
        log_probabilities = logits.float().log_softmax(-1).unflatten(0, (count, self.members))
        mean = log_probabilities.logsumexp(1) - math.log(self.members)
        return mean[0] if realizations is None else mean


class MeanField(nn.Module):
    """A defense whose dropout is replaced by its expectation: one deterministic pass instead of many draws.

    All T coefficients stay, activated and quantized as in the defense, and are multiplied by 1 - p. Attacks crafted on
    this module need one realization, and are scored on the defense itself.

    Args:
        model: The defense; decoder, classifier and surrogate gradient are shared.
    """

    def __init__(self, model: Defense) -> None:
        super().__init__()
        check_defense(model)
        if not is_plain(model):
            raise TypeError("model has hooks or a forward of its own, expected a plain Defense")
        self.training = model.training
        self.model = model
        self.encoder = share(model.encoder)
        self.encoder.dropout_p = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        code = self.encoder.encode(images, seed=0)
        survival = 1 - self.model.encoder.dropout_p
        membership = None if code.membership is None else code.membership * survival
        expected = code.with_value(code.parts[1] * survival, membership)
        logits: Tensor = self.model.classifier(self.model.decode(expected, images))
        return logits


class FixedMasks(nn.Module):
    """A random model made deterministic: all calls draw the same masks, and the same numbers from torch's generators.

    It is for debugging, and for libraries that expect a deterministic model. Its results say nothing about the random
    model.

    Args:
        model: The random model. Its forward takes ``seed`` and ``image_ids``.
        seed: The seed of the masks.
        image_ids: (B,) int64, the ids for calls without ids. None gives every image the masks of image 0, so that
            logits do not depend on the place in a batch.
    """

    def __init__(self, model: nn.Module, seed: int = 0, image_ids: Tensor | None = None) -> None:
        super().__init__()
        if not takes_seeds(model):
            raise TypeError(f"model is a {type(model).__name__}, expected one whose forward takes seed and image_ids")
        self.training = model.training
        self.model = model
        self.seed = seed
        self.image_ids = image_ids

    def forward(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """Returns logits (B, classes) with the masks of these ``image_ids``; ignores ``seed``."""
        ids = self.image_ids if image_ids is None else image_ids
        if ids is None:
            ids = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        with drawing_from(self.seed, images.device):
            logits: Tensor = self.model(images, seed=self.seed, image_ids=ids)
        return logits


class FixedBatch(Wrapper):
    """Classifies any number of images with a model that takes batches of one size only.

    A batch is split into parts of that size. The last part is filled up with images of the batch, and their logits are
    dropped.

    Args:
        model: The model, in evaluation mode.
        size: The number of images in its batches.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__(model)
        check_integer("size", size, 1)
        self.size = size

    def forward(self, images: Tensor, **arguments: object) -> Tensor:
        """Returns logits (B, classes) of images (B, C, H, W). Splits arguments with an entry for each image, too."""
        count = len(images)
        padded = torch.arange(-(-count // self.size) * self.size, device=images.device) % count
        logits = []
        for rows in padded.split(self.size):
            row_arguments = {name: select_rows(value, rows, count) for name, value in arguments.items()}
            logits.append(self.model(images[rows], **row_arguments))
        return torch.cat(logits)[:count]


def select_rows(value: object, rows: Tensor, count: int) -> object:
    """Returns these rows of a tensor with ``count`` entries, and any other value unchanged."""
    return value[rows] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == count else value


def check_defense(model: Defense) -> None:
    """Raises ``TypeError`` for a model that is not a ``Defense``."""
    if not isinstance(model, Defense):
        raise TypeError(f"model is a {type(model).__name__}, expected a Defense")
