"""Attack modes, the paper's (section 4) and ours: how the gradient gets through the autoencoder."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import nn

from ..attacks import APGDSettings, Perturbed, PGDSettings, SquareSettings, apgd, pgd, square
from ..attacks.checks import check_mode
from ..attacks.losses import likeliest_wrong_class
from ..attacks.protocol import batch_seed, chunk_rule
from ..attacks.settings import selection_draws
from ..models.fingerprints import state_fingerprint
from ..nn.classifiers import ResNet32
from ..nn.decoder import Decoder
from ..nn.defense import AUTOENCODER_IDENTITY, Defense
from ..nn.encoder import SELECTION
from ..nn.variants import Ensemble, MeanField
from ..utils.contexts import PRECISIONS, autocast
from ..utils.randomness import derive_seed
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

    def craft(
        self,
        model: nn.Module,
        block: Block,
        scoring: Scoring,
        progress: Progress = int,
        after_step: Callable[[int, torch.Tensor], object] | None = None,
    ) -> Perturbed:
        """Returns the block, perturbed; ``after_step`` is for PGD alone (see ``pgd``)."""
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
                **({} if after_step is None else {"after_step": after_step}),
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


PAPERS_MODES = {
    "w-nfga-identity": ("W-NFGA identity", "identity"),
    "w-nfga-smooth": ("W-NFGA smooth", "smooth"),
    "w-aiga": ("W-AIGA", AUTOENCODER_IDENTITY),
}
MODES = PAPERS_MODES | {SELECTION: ("selection", SELECTION)}
DETERMINISTIC_VARIANTS = ("mean-field", "fixed-masks")


def attacks_from(
    source: nn.Module,
    settings: AttackSettings,
    modes: Collection[str] = tuple(PAPERS_MODES),
    precision: str = "float32",
    transfer: str = "",
    variant: Variant | None = None,
    random: bool | None = None,
    method: str = "PGD",
    random_target: bool = True,
    widths: Widths = DEFAULT_WIDTHS,
) -> list[Attack]:
    """Attacks crafted on ``source``: with gradients one a mode from a ``Defense``, and one from any other model.

    W-NFGA and W-AIGA come of the attacked model itself, PW-T of a defense with an unsupervised decoder, and B-T of a
    classifier.

    Args:
        source: the attacked model itself (white box), or another (transfer).
        settings: of the attack; where the crafting model draws nothing, one realization is enough and is what it gets.
        modes: keys of ``MODES``; the paper's by default.
        precision: while gradients are taken. A search compares answers, whose differences bfloat16 rounds away, so it
            is in float32.
        transfer: where the source is not the attacked model, its name, for tables.
        variant: of the source (see ``Attack``).
        random: whether the source draws: one that does is attacked by many realizations. None knows that a ``Defense``
            does and a ``ResNet32`` does not; of any other model it has to be said (``evaluation.models.is_random``
            finds out).
        method: what the attack is called in tables; PGD is not named where a mode says enough.
        random_target: whether the attacked model draws; where it is not the crafting one, many draws then choose.
        widths: of the mode "selection".

    Raises:
        ValueError: a mode is unknown, or it is not said of another model than ours whether it draws.
    """
    check_modes(modes)
    draws = known_to_draw(source) if random is None else random
    if not draws or variant in DETERMINISTIC_VARIANTS:
        settings = one_draw(settings, keep_selection=random_target and bool(transfer or variant))
    ending = (variant or "", f"from {transfer}" if transfer else "")
    if not settings.gradients:
        precision = "float32"
    if not isinstance(source, Defense) or not settings.gradients:
        return [Attack(named(method, *ending), source, settings, precision, None, variant, transfer)]
    attacks = []
    for mode in modes:
        title, surrogate = MODES[mode]
        name = named("" if method == "PGD" else method, title, *ending)
        chosen = widths if surrogate == SELECTION else DEFAULT_WIDTHS
        attacks.append(Attack(name, source, settings, precision, surrogate, variant, transfer, chosen))
    return attacks


def known_to_draw(source: nn.Module) -> bool:
    if isinstance(source, Defense):
        return True
    if type(source) is ResNet32:
        return False
    raise ValueError(f"random is None, expected True or False for a {type(source).__name__}: whether it draws")


def check_modes(modes: Collection[str]) -> None:
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")


def one_draw(settings: AttackSettings, keep_selection: bool) -> AttackSettings:
    """The same with one realization a gradient, or a query, and no comparison on other draws.

    Args:
        settings: of the attack.
        keep_selection: whether the attacked model may still draw, so that what chooses the worst attempt stays.
    """
    if isinstance(settings, SquareSettings):
        return replace(settings, draws=1, fresh=False)
    selection = selection_draws(settings) if keep_selection else 1
    if isinstance(settings, APGDSettings):
        return replace(settings, realizations=1, selection=selection, fresh=False)
    return replace(settings, realizations=1, selection=selection)


def named(*words: str) -> str:
    return " ".join(word for word in words if word)
