"""What may become of images before they are scored: an attack, adversarial images that came ready-made, or nothing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import nn

from ..attacks import APGDSettings, Perturbed, PGDSettings, SquareSettings, apgd, pgd, square
from ..attacks.checks import check_mode
from ..attacks.prediction import likeliest_wrong_class
from ..attacks.realizations import batch_seed, chunk_rule
from ..contexts import PRECISIONS, autocast
from ..decoder import Decoder
from ..defense import AUTOENCODER_IDENTITY, Defense
from ..encoder import SELECTION
from ..randomness import derive_seed
from ..variants import Ensemble, MeanField
from .fingerprints import state_fingerprint
from .records import CLEAN
from .scoring import Block, Scoring, fixed

AttackSettings = PGDSettings | APGDSettings | SquareSettings
METHODS: dict[type, Callable[..., Perturbed]] = {PGDSettings: pgd, APGDSettings: apgd, SquareSettings: square}
Variant = Literal["ensemble", "mean-field", "fixed-masks"]
VARIANTS = get_args(Variant)
Progress = Callable[[int], object]
# Settings that came later, by the value under which an attack is the one that it was without them.
ADDED = {"momentum": 0.0, "schedule": "constant"}


class Widths(NamedTuple):
    """Of the surrogate "selection"; None keeps those of the model (see ``Defense.with_surrogate``)."""

    selection_width: float | None = None
    clamp_width: float | None = None


DEFAULT_WIDTHS = Widths()


class Perturbation(Protocol):
    """What an evaluation asks of ``Attack``, ``ReadyMade`` and ``Clean``."""

    @property
    def name(self) -> str:
        """Shown in tables, and unique in an evaluation."""

    @property
    def passes(self) -> int:
        """Passes an image that crafting reports as progress; 0 where there is no work."""

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        """The images of a block, perturbed to fool the model."""

    def identity(self) -> dict[str, Any]:
        """What makes two the same, in a form that JSON holds."""


@dataclass(frozen=True, eq=False)
class Attack:
    """An attack, and whose gradients it follows.

    Attributes:
        name: the seeds of its draws follow from it.
        source: the model that it is crafted on, in evaluation mode: the attacked one, or another (transfer).
        settings: they decide the method, too.
        precision: of the source's decoder and classifier while crafting; scoring is in float32 always.
        surrogate: how the gradient gets through a ``Defense`` (see ``Defense.with_surrogate``); None leaves that to
            the source.
        variant: of the source: "ensemble" is the ensemble as deployed, of as many members as there are scoring draws;
            "mean-field" has dropout replaced by its expectation; "fixed-masks" draws the same masks in every call.
            None is the source itself, one realization a gradient.
        transfer: the source's name where it is not the attacked model.
        widths: of the surrogate "selection".
        targeted: aims at the wrong class that the attacked model finds likeliest in the clean image.
    """

    name: str
    source: nn.Module
    settings: AttackSettings
    precision: str = "float32"
    surrogate: str | None = None
    variant: Variant | None = None
    transfer: str = ""
    widths: Widths = DEFAULT_WIDTHS
    targeted: bool = False

    def __post_init__(self) -> None:
        if type(self.settings) not in METHODS:
            known = ", ".join(kind.__name__ for kind in METHODS)
            raise TypeError(f"settings is a {type(self.settings).__name__}, expected one of {known}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if self.precision != "float32" and not self.settings.gradients:
            raise ValueError(f"precision is {self.precision!r}, expected 'float32' for an attack without gradients")
        if self.variant is not None and self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}, expected one of {', '.join(VARIANTS)}")
        if not isinstance(self.source, Defense) and (self.surrogate or self.variant):
            kind = type(self.source).__name__
            raise ValueError(f"source is a {kind}, expected a Defense for a surrogate gradient or a variant")
        check_mode("source", self.source)
        self.crafting_model(Scoring(), torch.empty(0, dtype=torch.int64))

    @property
    def passes(self) -> int:
        return self.settings.gradients or self.settings.forwards

    @property
    def family(self) -> Literal["white-box", "PW-T", "B-T", "gradient-free"]:
        """The paper's (section 4): a transfer is PW-T from a defense with another decoder, B-T from a classifier."""
        if self.transfer:
            return "PW-T" if isinstance(self.source, Defense) else "B-T"
        return "white-box" if self.settings.gradients else "gradient-free"

    @property
    def followed_surrogate(self) -> str | None:
        """The surrogate gradient that is followed: the attack's, or the source's own; None where it has none."""
        return self.surrogate or own_surrogate(self.source)

    def crafting_model(self, scoring: Scoring, ids: torch.Tensor) -> nn.Module:
        """The module whose gradients are followed, for the images of these ids."""
        model = self.source
        if isinstance(model, Defense):
            if self.surrogate is not None:
                model = model.with_surrogate(self.surrogate, **self.widths._asdict())
            if self.variant == "ensemble":
                return Ensemble(model, scoring.draws)
            if self.variant == "mean-field":
                return MeanField(model)
        return fixed(model, scoring, ids) if scoring.deterministic or self.variant == "fixed-masks" else model

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        targets = targets_of(model, block, scoring) if self.targeted else None
        with autocast(self.precision, block.images.device):
            return METHODS[type(self.settings)](
                self.crafting_model(scoring, block.ids),
                block.images,
                block.labels,
                self.settings,
                seed=derive_seed(scoring.seed, f"craft {self.name}"),
                image_ids=block.ids,
                targets=targets,
                judge=fixed(model, scoring, block.ids) if scoring.deterministic else model,
                progress=progress,
            )

    def identity(self) -> dict[str, Any]:
        return {
            "method": METHODS[type(self.settings)].__name__,
            "family": self.family,
            "access": "transfer" if self.transfer else self.family,
            "source": {"name": self.transfer, "kind": type(self.source).__name__}
            | {"fingerprint": state_fingerprint(self.source)},
            "surrogate": self.followed_surrogate,
            **self.resolved_widths(),
            "variant": self.variant,
            "precision": self.precision,
            **({"targeted": True} if self.targeted else {}),
            "settings": self.decisive_settings(),
            "gradients": self.settings.gradients,
            "forwards": self.settings.forwards,
        }

    def decisive_settings(self) -> dict[str, Any]:
        """The settings as JSON holds them, with what decides how many realizations are drawn at once."""
        settings = {name: value for name, value in asdict(self.settings).items() if value != ADDED.get(name)}
        if "chunk" in settings:
            settings["chunk"] = chunk_rule(self.source, settings["chunk"])
        return settings

    def resolved_widths(self) -> dict[str, float]:
        """Those of the surrogate "selection", where that is followed."""
        model = self.source
        if not isinstance(model, Defense) or self.followed_surrogate != SELECTION:
            return {}
        model = model.with_surrogate(SELECTION, **self.widths._asdict())
        widths = {"selection_width": model.encoder.resolved_selection_width()}
        return widths | ({"clamp_width": model.decoder.clamp_width} if isinstance(model.decoder, Decoder) else {})


def targets_of(model: nn.Module, block: Block, scoring: Scoring) -> torch.Tensor:
    seed = batch_seed(model, derive_seed(scoring.seed, "targets"), block.ids)
    return likeliest_wrong_class(model, block.images, block.labels, scoring.draws, seed, block.ids)


class Clean:
    """The attack without perturbation."""

    name = CLEAN
    passes = 0

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        return untouched(block.images)

    def identity(self) -> dict[str, Any]:
        return {"method": CLEAN, "family": CLEAN, "access": CLEAN, "gradients": 0, "forwards": 0}


def untouched(images: torch.Tensor) -> Perturbed:
    """Images that took no pass to make."""
    none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    return Perturbed(images, 0, 0, none, none)


def own_surrogate(model: nn.Module) -> str | None:
    if not isinstance(model, Defense):
        return None
    return AUTOENCODER_IDENTITY if model.autoencoder_identity else model.encoder.surrogate
