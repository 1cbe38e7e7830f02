"""Encoder, decoder and classifier as one model (paper, Figure 1), with ensembling (section 2.4, eq. 8)."""

import copy
from collections.abc import Callable
from typing import Any, Self, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from ..utils.modules import HOOKS, is_altered
from ..utils.randomness import seed_tensor
from ..utils.validation import check_integer
from .architectures import classifier_from_config, is_deterministic
from .code import SparseCode, TopT
from .decoder import Decoder
from .encoder import ENCODER_SURROGATES, SELECTION, SparseEncoder
from .pretrained_model import PretrainedModel
from .selection_gradient import SelectionGradient, is_shareable

AUTOENCODER_IDENTITY = "autoencoder-identity"
# With this many rows in a pass, its fixed cost is small: the packing of filters on a CPU, the launches on a GPU. A row
# is an image of 32 x 32 pixels; a larger image counts as several, since memory grows with the pixels.
ROWS = {"cpu": 64, "cuda": 512}

Module = TypeVar("Module", bound=nn.Module)


class Defense(PretrainedModel):
    """Classifies images in [0, 1] through the randomized autoencoder.

    Dropout in the encoder is always on, so two calls without a seed give different logits.

    Args:
        encoder: The encoder, from images to codes. One realization comes from its ``encode``, several from its
            ``select``: a subclass that overrides one must override the other.
        decoder: The decoder, from codes to images.
        classifier: The classifier, from images in [0, 1] to logits, with the normalization inside.
    """

    def __init__(self, encoder: SparseEncoder, decoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        self.autoencoder_identity = False

    def config(self) -> dict[str, Any]:
        """Returns the configurations of encoder, decoder and classifier, as values that JSON can hold.

        Under W-AIGA (see ``with_surrogate``) the encoder's surrogate is "autoencoder-identity".

        Raises:
            TypeError: The decoder or the classifier is not one of ours.
        """
        if not isinstance(self.decoder, Decoder) or not is_deterministic(self.classifier):
            kinds = f"{type(self.decoder).__name__} and {type(self.classifier).__name__}"
            raise TypeError(f"decoder and classifier are {kinds}, expected Decoder and ResNet32 or EfficientNetB0")
        surrogate = AUTOENCODER_IDENTITY if self.autoencoder_identity else self.encoder.surrogate
        return {
            "encoder": self.encoder.config() | {"surrogate": surrogate},
            "decoder": self.decoder.config(),
            "classifier": self.classifier.config(),  # type: ignore[operator]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], atoms: Tensor) -> Self:
        """Returns an untrained defense with these atoms and the settings that ``config`` returned."""
        identity = config["encoder"]["surrogate"] == AUTOENCODER_IDENTITY
        surrogate = {"surrogate": "smooth"} if identity else {}
        model = cls(
            SparseEncoder.from_config(config["encoder"] | surrogate, atoms),
            Decoder.from_config(config["decoder"]),
            classifier_from_config(config["classifier"]),
        )
        model.autoencoder_identity = identity
        return model

    def forward(
        self,
        images: Tensor,
        realizations: int | None = None,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> Tensor:
        """Returns logits of one realization, (B, classes), or of several, (realizations, B, classes).

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            realizations: The number of realizations. None is one, without the leading dimension.
            seed, image_ids: As in ``SparseEncoder.encode``.

        Raises:
            TypeError, ValueError: An argument does not fit; the message names it.
        """
        if realizations is None:
            return self.classifier(self.autoencode(images, seed, image_ids))
        check_integer("realizations", realizations, 1)
        selection = self.encoder.select(images)
        logits = self.realize(selection, seed, image_ids, 0, realizations)
        return logits.unflatten(0, (realizations, images.shape[0]))

    def autoencode(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """Returns the decoded images of one realization, the classifier's input, (B, C, H, W) in [0, 1]."""
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
        """Returns logits (count * B, classes) of realizations start .. start + count - 1 of a selection.

        Takes the arguments of ``TopT.draw``; realization r of image b is in row r * B + b.
        """
        code = selection.draw(seed, image_ids, start, count, receiver)
        if receiver is None:
            receiver = selection.images
            if self.autoencoder_identity:
                receiver = receiver.expand(count, *receiver.shape).flatten(0, 1)
        return self.classifier(self.decode(code, receiver))

    def decode(self, code: SparseCode, images: Tensor) -> Tensor:
        """Decodes a code. Under W-AIGA (see ``with_surrogate``) the gradient goes to ``images`` unchanged.

        Raises:
            ValueError: The images do not have the decoder's size; the decoder would crop without notice.
        """
        self.require_size(images)
        if not self.autoencoder_identity:
            return self.decoder(code)
        with torch.no_grad():
            decoded = self.decoder(code)
        return decoded + (images - images.detach()).to(decoded.dtype)

    def require_size(self, images: Tensor) -> None:
        """Raises ``ValueError`` for images of another size than our decoder's output."""
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
        """Averages the softmax outputs over ``ensemble`` realizations (eq. 8).

        Selects once and draws ``chunk`` realizations at a time, so memory does not grow with their number.

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            ensemble: The number of realizations, E.
            seed, image_ids: As in ``SparseEncoder.encode``.
            chunk: The number of realizations in memory at a time.

        Returns:
            (B, classes) float32 probabilities.

        Raises:
            TypeError, ValueError: An argument does not fit; the message names it.
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
        """Returns the same model with another gradient. The two share parameters, buffers and training modes.

        Args:
            surrogate: "selection" for the gradient through the top T; "identity", "smooth" or "smooth-normalized" for
                W-NFGA (the white-box near-full gradient approximation: gradients through the surviving coefficients)
                with that derivative of the quantizer; "autoencoder-identity" for W-AIGA (the white-box
                autoencoder-identity gradient approximation), which treats the autoencoder as the identity.
            selection_width: For "selection" only (see ``SparseEncoder``); None keeps the encoder's.
            clamp_width: For "selection" only (see ``Decoder``); None keeps the decoder's.

        Raises:
            ValueError: The surrogate is unknown, or a width does not fit the surrogate or the decoder.
            TypeError: ``forward`` was assigned to this instance.
        """
        surrogates = (*ENCODER_SURROGATES, AUTOENCODER_IDENTITY)
        if surrogate not in surrogates:
            raise ValueError(f"surrogate is {surrogate!r}, expected one of {', '.join(surrogates)}")
        if surrogate != SELECTION and (selection_width is not None or clamp_width is not None):
            raise ValueError(f"surrogate is {surrogate!r}, expected {SELECTION!r} with a selection or clamp width")
        if "forward" in vars(self):
            raise TypeError(
                "forward was assigned to the model itself, and would keep its own gradient; define it in a subclass"
            )
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
        """Returns how many rows (images times realizations) of 32 x 32 pixels an attack should draw at once.

        None for subclasses and models with hooks, which attacks call once for each realization
        (see ``neuroae.attacks.protocol``).
        """
        return ROWS.get(self.encoder.atoms.device.type, ROWS["cpu"]) if is_plain(self) else None

    def realizer(
        self, images: Tensor, seed: int | Tensor, image_ids: Tensor
    ) -> Callable[[int, int, Tensor], Tensor] | None:
        """Selects once for these images, and returns the function with which attacks draw realizations.

        Args:
            images: (B, C, H, W) in [0, 1].
            seed, image_ids: Seed and ids of the draws, as in ``SparseEncoder.encode``.

        Returns:
            A function of (start, count, receiver) to the logits of ``count`` realizations (see ``realize``). None for
            subclasses and models with hooks, which attacks call once for each realization.
        """
        if not is_plain(self):
            return None
        selection = self.encoder.select(images)
        return lambda start, count, receiver: self.realize(selection, seed, image_ids, start, count, receiver)

    def attack_gradients(self) -> dict[str, "Defense"]:
        """Returns views of the model by the name of the gradient that attacks should try, the strongest first."""
        names = {"selection": SELECTION, "W-NFGA": "smooth", "W-AIGA": AUTOENCODER_IDENTITY}
        return {name: self.with_surrogate(surrogate) for name, surrogate in names.items()}

    def shared_gradient(
        self, images: Tensor, seed: int | Tensor, image_ids: Tensor, normalize: Callable[[Tensor], Tensor]
    ) -> SelectionGradient | None:
        """Returns a ``SelectionGradient``, with which attacks compute one gradient of many realizations.

        Args:
            images: (B, C, H, W) in [0, 1].
            seed, image_ids: Seed and ids of the draws, as in ``SparseEncoder.encode``.
            normalize: The attack's function from realizations' gradients, (rows, C, H, W), to the terms of the sum.

        Returns:
            None if realizations cannot share work: under any surrogate but "selection", and in models with parts that
            are not ours.
        """
        if self.autoencoder_identity or self.encoder.surrogate != SELECTION or not is_plain(self):
            return None
        decoder = self.decoder
        if type(decoder) is not Decoder or is_altered(decoder) or not is_shareable(decoder.conv1):
            return None
        self.require_size(images)
        return SelectionGradient(self.encoder, decoder, self.classifier, images, seed, image_ids, normalize)


def is_plain(model: nn.Module) -> TypeGuard[Defense]:
    """Returns whether model and encoder are a ``Defense`` and a ``SparseEncoder`` without subclasses or hooks."""
    if type(model) is not Defense or type(model.encoder) is not SparseEncoder:
        return False
    return not is_altered(model) and not is_altered(model.encoder)


def share(module: Module) -> Module:
    """Returns a shallow copy that shares parameters, buffers and submodules, with its own settings and hooks."""
    twin = copy.copy(module)
    for name in ("_modules", *HOOKS):
        setattr(twin, name, copy.copy(getattr(module, name)))
    return twin
