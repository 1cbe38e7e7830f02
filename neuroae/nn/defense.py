"""Encoder, decoder and classifier as one model (paper, Figure 1), with ensembling (section 2.4, eq. 8)."""

import copy
from collections.abc import Callable
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from ..utils.modules import HOOKS, is_altered
from ..utils.randomness import seed_tensor
from ..utils.validation import check_integer
from .code import SparseCode, TopT
from .decoder import Decoder
from .encoder import ENCODER_SURROGATES, SELECTION, SparseEncoder
from .pretrained_model import PretrainedModel
from .selection_gradient import SelectionGradient, is_shareable

AUTOENCODER_IDENTITY = "autoencoder-identity"
# What a pass costs beside its rows, on a CPU the packing of filters above all, on a GPU its launches, is little from
# about so many rows on. Large images are not repeated for it: pixels are what takes memory.
ROWS = {"cpu": 64, "cuda": 512}

Module = TypeVar("Module", bound=nn.Module)


class Defense(PretrainedModel):
    """Images in [0, 1] to logits, through the randomized autoencoder.

    Dropout in the encoder is always on, so two calls give two answers unless a seed is given.

    Args:
        encoder: makes the code. One realization comes from its ``encode``, several from its ``select``: a subclass
            that changes the one changes the other as well.
        decoder: makes an image of it.
        classifier: takes images in [0, 1] to logits (normalization inside).
    """

    def __init__(self, encoder: SparseEncoder, decoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        self.autoencoder_identity = False

    def forward(
        self,
        images: Tensor,
        realizations: int | None = None,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of one realization, (B, classes), or of several, (realizations, B, classes).

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            realizations: None for one without a leading dimension.
            seed, image_ids: as in ``SparseEncoder.encode``.
        """
        if realizations is None:
            return self.classifier(self.autoencode(images, seed, image_ids))
        check_integer("realizations", realizations, 1)
        selection = self.encoder.select(images)
        logits = self.realize(selection, seed, image_ids, 0, realizations)
        return logits.unflatten(0, (realizations, images.shape[0]))

    def autoencode(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """The image that the classifier sees, for one realization: (B, C, H, W) in [0, 1]."""
        code = self.encoder.encode(images.detach() if self.autoencoder_identity else images, 1, seed, image_ids)
        return self.decode(code, images)

    def realize(
        self,
        selection: TopT,
        seed: int | Tensor | None,
        image_ids: Tensor | None,
        start: int,
        count: int,
        receiver: Tensor | None = None,
    ) -> Tensor:
        """Logits (count * B, classes) of realizations start .. start + count - 1; see ``TopT.draw``."""
        code = selection.draw(seed, image_ids, start, count, receiver)
        if receiver is None:
            receiver = selection.images
            if self.autoencoder_identity:
                receiver = receiver.expand(count, *receiver.shape).flatten(0, 1)
        return self.classifier(self.decode(code, receiver))

    def decode(self, code: SparseCode, images: Tensor) -> Tensor:
        """The decoded image; under W-AIGA with the gradient of the identity, which goes to ``images``.

        Raises:
            ValueError: the images are not of the size that the decoder makes; it would crop them without a word.
        """
        self.require_size(images)
        if not self.autoencoder_identity:
            return self.decoder(code)
        with torch.no_grad():
            decoded = self.decoder(code)
        return decoded + (images - images.detach()).to(decoded.dtype)

    def require_size(self, images: Tensor) -> None:
        if isinstance(self.decoder, Decoder) and images.shape[2:] != self.decoder.image_size:
            (height, width), expected = images.shape[2:], self.decoder.image_size
            raise ValueError(f"images are {height} x {width}, expected {expected[0]} x {expected[1]}, the decoder's")

    @torch.no_grad()
    def predict_proba(
        self,
        images: Tensor,
        ensemble: int = 10,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
        chunk: int = 1,
    ) -> Tensor:
        """Mean of the softmax outputs over ``ensemble`` realizations (eq. 8), (B, classes) float32.

        Selects once and streams the realizations ``chunk`` at a time, so memory does not grow with their number.
        """
        check_integer("ensemble", ensemble, 1)
        check_integer("chunk", chunk, 1)
        selection = self.encoder.select(images)
        seed = seed_tensor(seed, images.device)
        total: Tensor | None = None
        for start in range(0, ensemble, chunk):
            count = min(chunk, ensemble - start)
            logits = self.realize(selection, seed, image_ids, start, count)
            for probabilities in logits.float().softmax(-1).split(images.shape[0]):
                total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / ensemble

    def with_surrogate(
        self, surrogate: str, *, selection_width: float | None = None, clamp_width: float | None = None
    ) -> "Defense":
        """The same model with another gradient. Parts are shared: parameters, buffers, and whether they train.

        Args:
            surrogate: "selection" for the gradient through the top T, "identity", "smooth" or "smooth-normalized"
                for W-NFGA with that quantizer derivative, or "autoencoder-identity" for W-AIGA, which treats the
                whole autoencoder as the identity.
            selection_width: of "selection" (see ``SparseEncoder``); None keeps the encoder's.
            clamp_width: of "selection" (see ``Decoder``); None keeps the decoder's.

        Raises:
            ValueError: the surrogate is unknown, or a width does not fit it or the decoder.
            TypeError: ``forward`` was assigned to this instance.
        """
        known = (*ENCODER_SURROGATES, AUTOENCODER_IDENTITY)
        if surrogate not in known:
            raise ValueError(f"surrogate is {surrogate!r}, expected one of {', '.join(known)}")
        if surrogate != SELECTION and (selection_width is not None or clamp_width is not None):
            raise ValueError(f"surrogate is {surrogate!r}, expected {SELECTION!r} with a selection or clamp width")
        if "forward" in vars(self):
            raise TypeError("forward was assigned to the model itself, whose gradient it keeps; give it to a subclass")
        model = share(self)
        model.autoencoder_identity = surrogate == AUTOENCODER_IDENTITY
        if not model.autoencoder_identity:
            model.encoder = share(self.encoder)
            model.encoder.surrogate = surrogate
        if selection_width is not None:
            model.encoder.selection_width = selection_width
        if clamp_width is not None:
            if not isinstance(self.decoder, Decoder):
                raise ValueError(f"decoder is a {type(self.decoder).__name__}, expected a Decoder with a clamp width")
            decoder = share(self.decoder)
            decoder.clamp_width = clamp_width
            model.decoder = decoder
        return model

    def rows_at_once(self) -> int | None:
        """Rows (images times realizations) of 32 x 32 pixels that an attack draws at once; None of altered models."""
        return ROWS.get(self.encoder.atoms.device.type, ROWS["cpu"]) if is_plain(self) else None

    def realizer(self, images: Tensor, seed: int, image_ids: Tensor) -> Callable[[int, int, Tensor], Tensor] | None:
        """How attacks draw many realizations: projection and selection are computed once for these images.

        None in models with parts of one's own, which are called once a realization.

        Args:
            images: (B, C, H, W) in [0, 1].
            seed, image_ids: Of the draws, as in ``SparseEncoder.encode``.

        Returns:
            A function of (start, count, receiver) to the logits of ``count`` realizations (see ``realize``).
        """
        if not is_plain(self):
            return None
        selection = self.encoder.select(images)
        return lambda start, count, receiver: self.realize(selection, seed, image_ids, start, count, receiver)

    def shared_gradient(
        self, images: Tensor, seed: int, image_ids: Tensor, weigh: Callable[[Tensor], Tensor]
    ) -> SelectionGradient | None:
        """How attacks take one gradient of many realizations at less than the price of each (``SelectionGradient``).

        None where realizations share nothing: under other surrogates, and in models with parts of one's own.

        Args:
            images: (B, C, H, W) in [0, 1].
            seed, image_ids: of the draws.
            weigh: from the gradients of realizations (rows, C, H, W) to what each adds to the sum.
        """
        if self.autoencoder_identity or self.encoder.surrogate != SELECTION or not is_plain(self):
            return None
        decoder = self.decoder
        if type(decoder) is not Decoder or is_altered(decoder) or not is_shareable(decoder.conv1):
            return None
        self.require_size(images)
        return SelectionGradient(self.encoder, decoder, self.classifier, images, seed, image_ids, weigh)


def is_plain(model: nn.Module) -> TypeGuard[Defense]:
    """Whether a call is what ``Defense`` and ``SparseEncoder`` make it: no subclass, no other forward, no hooks on
    them."""
    if type(model) is not Defense or type(model.encoder) is not SparseEncoder:
        return False
    return not is_altered(model) and not is_altered(model.encoder)


def share(module: Module) -> Module:
    """A shallow copy that shares parameters, buffers and submodules but has its own settings and hooks."""
    twin = copy.copy(module)
    for name in ("_modules", *HOOKS):
        setattr(twin, name, copy.copy(getattr(module, name)))
    return twin
