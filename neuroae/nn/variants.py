"""Other views of a random model, each a module like it, for attacks and for debugging."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..utils.contexts import drawing_from
from ..utils.modules import takes_seeds
from ..utils.validation import check_integer
from .defense import Defense, is_plain, share


class Ensemble(nn.Module):
    """The ensemble as deployed: the log of the mean softmax output of several realizations (paper, eq. 8).

    One realization of it is a whole ensemble, so a gradient goes through the mean, which attacks on single
    realizations do not do. Memory grows with the members, which are in one graph.

    Args:
        model: whose realizations vote.
        members: E.
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
        """Log-probabilities (B, classes), or (realizations, B, classes): each of ``members`` draws of its own."""
        count = 1 if realizations is None else realizations
        logits = self.model(images, realizations=count * self.members, seed=seed, image_ids=image_ids)
        each = logits.float().log_softmax(-1).unflatten(0, (count, self.members))
        mean = each.logsumexp(1) - math.log(self.members)
        return mean[0] if realizations is None else mean


class MeanField(nn.Module):
    """A defense whose dropout is replaced by its expectation: one deterministic pass in place of many draws.

    Each of the T coefficients stays, activated and quantized as ever, and counts 1 - p times. Made to craft attacks
    that are scored on the defense itself; they need one realization.

    Args:
        model: the defense; decoder, classifier and surrogate gradient are shared.
    """

    def __init__(self, model: Defense) -> None:
        super().__init__()
        check_defense(model)
        if not is_plain(model):
            raise TypeError("model has hooks or a forward of its own, expected a Defense that is called part by part")
        self.training = model.training
        self.model = model
        self.encoder = share(model.encoder)
        self.encoder.dropout_p = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        code = self.encoder.encode(images, seed=0)
        kept = 1 - self.model.encoder.dropout_p
        membership = None if code.membership is None else code.membership * kept
        expected = replace(code, value=code.value * kept, membership=membership)
        logits: Tensor = self.model.classifier(self.model.decode(expected, images))
        return logits


class FixedMasks(nn.Module):
    """A random model made deterministic: every call draws the same masks, and the same of torch's generators. For
    debugging, and for libraries that take a model to be a function. Results on it say nothing about the random model.

    Args:
        model: whose forward takes ``seed`` and ``image_ids``.
        seed: of the masks.
        image_ids: (B,) int64, of the batch that will come from who does not give ids. None gives every image the
            masks of image 0, so that an answer does not depend on the place in a batch.
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
        """Logits (B, classes). The masks follow ``image_ids`` where they are given; ``seed`` changes nothing."""
        ids = self.image_ids if image_ids is None else image_ids
        if ids is None:
            ids = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        with drawing_from(self.seed, images.device):
            logits: Tensor = self.model(images, seed=self.seed, image_ids=ids)
        return logits


class FixedBatch(nn.Module):
    """Any number of images to logits, by a model that takes batches of one size alone.

    A batch goes in parts of that size; what the last one lacks is filled up with images of the batch, whose logits
    are dropped.

    Args:
        model: in evaluation mode.
        size: images that it takes.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        check_integer("size", size, 1)
        self.model, self.size = model, size
        # Not by eval(), which models with a fixed mode do not have.
        self.training = False

    def forward(self, images: Tensor, **arguments: object) -> Tensor:
        """(B, C, H, W) images to logits (B, classes); arguments that hold a number for each image go with them."""
        count = len(images)
        filled = torch.arange(-(-count // self.size) * self.size, device=images.device) % count
        logits = []
        for rows in filled.split(self.size):
            rest = {name: part(value, rows, count) for name, value in arguments.items()}
            logits.append(self.model(images[rows], **rest))
        return torch.cat(logits)[:count]


def part(value: object, rows: Tensor, count: int) -> object:
    """These rows of what has one for each of ``count`` images, and anything else as it is."""
    return value[rows] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == count else value


def check_defense(model: Defense) -> None:
    if not isinstance(model, Defense):
        raise TypeError(f"model is a {type(model).__name__}, expected a Defense")
