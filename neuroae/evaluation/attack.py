"""The attacks of an evaluation: which model they follow, by which gradient, and with which settings."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import nn

from ..attacks import APGDSettings, Perturbed, PGDSettings, SquareSettings, apgd, pgd, square
from ..attacks.checks import check_mode
from ..attacks.losses import wrong_classes
from ..attacks.protocol import batch_seed, chunk_rule
from ..attacks.settings import selection_draws
from ..models.fingerprints import state_fingerprint
from ..nn.architectures import is_deterministic
from ..nn.classifiers import DropoutResNet32
from ..nn.decoder import Decoder
from ..nn.defense import AUTOENCODER_IDENTITY, Defense
from ..nn.encoder import SELECTION
from ..nn.front_ends import FrontEndClassifier
from ..nn.variants import Ensemble, MeanField
from ..utils.contexts import PRECISIONS, autocast
from ..utils.randomness import derive_seed
from .records import CLEAN
from .scoring import Block, Scoring, with_fixed_masks

AttackSettings = PGDSettings | APGDSettings | SquareSettings
METHODS: dict[type, Callable[..., Perturbed]] = {PGDSettings: pgd, APGDSettings: apgd, SquareSettings: square}
METHOD_TITLES = {"pgd": "PGD", "apgd": "APGD", "square": "Square"}
Variant = Literal["ensemble", "mean-field"]
VARIANTS = get_args(Variant)
Progress = Callable[[int], object]
# Settings of later versions, and the value that leaves an attack what it was before: identities omit them then.
LATER_SETTINGS = {"momentum": 0.0, "schedule": "constant"}


class Widths(NamedTuple):
    """The widths of the surrogate "selection". None keeps the model's own (see ``Defense.with_surrogate``)."""

    selection_width: float | None = None
    clamp_width: float | None = None


DEFAULT_WIDTHS = Widths()


class Perturbation(Protocol):
    """What an evaluation needs of an attack: ``Attack``, ``ReadyMade`` and ``Clean`` have it."""

    @property
    def name(self) -> str:
        """The name in tables, unique in an evaluation."""

    @property
    def passes(self) -> int:
        """Passes per image that crafting reports as progress; 0 for images that exist already."""

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        """Returns the images of a block, perturbed to fool the model."""

    def identity(self) -> dict[str, Any]:
        """Returns what decides the perturbed images, as JSON values: equal identities mean the same attack."""


@dataclass(frozen=True, eq=False)
class Attack:
    """An attack with its settings and the model whose gradients it follows.

    Attributes:
        name: The name in tables. The seeds of the attack's draws derive from it.
        source: The model that images are crafted on, in evaluation mode: the attacked model itself (white box) or
            another one (transfer).
        settings: Budget, steps and draws. Their type decides the method: PGD, APGD or Square.
        precision: "float32" or "bfloat16", for the source's decoder and classifier while crafting. Scoring is always
            in float32.
        surrogate: How the gradient passes a ``Defense`` (see ``Defense.with_surrogate``). None keeps the surrogate of
            the source.
        variant: The view of the source that is attacked. "ensemble" is the ensemble as deployed, with as many members
            as there are scoring draws; "mean-field" replaces dropout by its expectation. None attacks the source
            itself, one realization per gradient.
        transfer: The source's name where it is not the attacked model, else "".
        widths: The widths of the surrogate "selection".
        targeted: Whether the attack aims at the class that the attacked model finds likeliest among the wrong ones.

    Raises:
        TypeError: ``settings`` is of no known method.
        ValueError: An argument has an unknown value, or does not fit the source.
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
            names = ", ".join(kind.__name__ for kind in METHODS)
            raise TypeError(f"settings is a {type(self.settings).__name__}, expected one of {names}")
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
        """The threat model (paper, section 4).

        A transfer is partial white-box (PW-T) from a defense with another decoder, and black-box (B-T) from a
        classifier.
        """
        if self.transfer:
            return "PW-T" if isinstance(self.source, Defense) else "B-T"
        return "white-box" if self.settings.gradients else "gradient-free"

    @property
    def followed_surrogate(self) -> str | None:
        """The surrogate gradient in use: the attack's, or else the source's. None for a model that has none."""
        return self.surrogate or source_surrogate(self.source)

    def crafting_model(self, scoring: Scoring, ids: torch.Tensor) -> nn.Module:
        """Returns the module whose gradients are followed, for the images of these ids."""
        model = self.source
        if isinstance(model, Defense):
            if self.surrogate is not None:
                model = model.with_surrogate(self.surrogate, **self.widths._asdict())
            if self.variant == "ensemble":
                return Ensemble(model, scoring.draws)
            if self.variant == "mean-field":
                return MeanField(model)
        return with_fixed_masks(model, scoring, ids) if scoring.deterministic else model

    def craft(
        self,
        model: nn.Module,
        block: Block,
        scoring: Scoring,
        progress: Progress = int,
        after_step: Callable[[int, torch.Tensor], object] | None = None,
    ) -> Perturbed:
        """Returns the block, perturbed; ``after_step`` is for PGD alone (see ``pgd``)."""
        targets = likeliest_targets(model, block, scoring) if self.targeted else None
        with autocast(self.precision, block.images.device):
            return METHODS[type(self.settings)](
                self.crafting_model(scoring, block.ids),
                block.images,
                block.labels,
                self.settings,
                seed=derive_seed(scoring.seed, f"craft {self.name}"),
                image_ids=block.ids,
                targets=targets,
                judge=with_fixed_masks(model, scoring, block.ids) if scoring.deterministic else model,
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
        """Returns the settings as JSON values, with the rule for how many realizations are drawn at once."""
        # The norm came to Square later; gradient attacks have always named theirs.
        later = LATER_SETTINGS | ({"norm": "linf"} if isinstance(self.settings, SquareSettings) else {})
        settings = {name: value for name, value in asdict(self.settings).items() if value != later.get(name)}
        if "chunk" in settings:
            settings["chunk"] = chunk_rule(self.source, settings["chunk"])
        return settings

    def resolved_widths(self) -> dict[str, float]:
        """Returns the widths in use; empty where the attack does not follow the surrogate "selection"."""
        model = self.source
        if not isinstance(model, Defense) or self.followed_surrogate != SELECTION:
            return {}
        model = model.with_surrogate(SELECTION, **self.widths._asdict())
        widths = {"selection_width": model.encoder.resolved_selection_width()}
        return widths | ({"clamp_width": model.decoder.clamp_width} if isinstance(model.decoder, Decoder) else {})


def likeliest_targets(model: nn.Module, block: Block, scoring: Scoring) -> torch.Tensor:
    """Returns (B,) int64, the wrong class that the model finds likeliest in each clean image."""
    seed = batch_seed(model, derive_seed(scoring.seed, "targets"), block.ids)
    return wrong_classes(model, block.images, block.labels, scoring.draws, seed, block.ids)[:, 0]


class Clean:
    """The clean images, as an attack that changes nothing."""

    name = CLEAN
    passes = 0

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        return without_passes(block.images)

    def identity(self) -> dict[str, Any]:
        return {"method": CLEAN, "family": CLEAN, "access": CLEAN, "gradients": 0, "forwards": 0}


def without_passes(images: torch.Tensor) -> Perturbed:
    """Returns the images as the result of an attack that made no pass."""
    none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    return Perturbed(images, 0, 0, none, none)


def craft(
    attack: Perturbation, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int
) -> Perturbed:
    """Returns a block's images under an attack on the model, clipped to [0, 1], in float32 as they are scored.

    Raises:
        FloatingPointError: The attack made a pixel that is NaN or infinite.
    """
    perturbed = attack.craft(model, block, scoring, progress)
    if not bool(perturbed.images.isfinite().all()):
        raise FloatingPointError(f"{attack.name} made pixels that are not finite")
    return perturbed._replace(images=perturbed.images.float().clamp(0, 1))


def source_surrogate(model: nn.Module) -> str | None:
    """Returns the surrogate gradient that a model is set to; None for a model other than a ``Defense``."""
    if not isinstance(model, Defense):
        return None
    return AUTOENCODER_IDENTITY if model.autoencoder_identity else model.encoder.surrogate


# The paper's modes (section 4.1). W-NFGA, the white-box near-full gradient approximation, differentiates everything
# but the quantizer, which gets a surrogate derivative. W-AIGA, the white-box autoencoder-identity gradient
# approximation, takes the derivative of the whole autoencoder to be the identity.
PAPERS_MODES = {
    "w-nfga-identity": ("W-NFGA identity", "identity"),
    "w-nfga-smooth": ("W-NFGA smooth", "smooth"),
    "w-aiga": ("W-AIGA", AUTOENCODER_IDENTITY),
}
# Title in tables and surrogate gradient of each mode.
MODES = PAPERS_MODES | {SELECTION: ("selection", SELECTION)}
SURROGATE_TITLES = {surrogate: title for title, surrogate in MODES.values()}


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
    """Returns the attacks that are crafted on a model: one per mode on a ``Defense``, a single one on any other model.

    The attacked model itself as the source gives the paper's white-box attacks (W-NFGA, W-AIGA), a defense with an
    unsupervised decoder the partial white-box transfer PW-T, and a classifier the black-box transfer B-T.

    Args:
        source: The model that images are crafted on, in evaluation mode.
        settings: The settings of the attack. A source that draws nothing gets one realization per gradient.
        modes: Keys of ``MODES``; by default the paper's. Attacks without gradients have no modes.
        precision: "float32" or "bfloat16", while gradients are taken. Attacks without gradients run in float32, since
            bfloat16 would round away the differences that they compare.
        transfer: The source's name for tables, where it is not the attacked model.
        variant: The view of the source that is attacked (see ``Attack``).
        random: Whether the source draws, and so needs many realizations. None is enough for the models of this
            package; ``evaluation.models.is_random`` finds it out for other models.
        method: The method's name for tables. "PGD" is left out where a mode is named.
        random_target: Whether the attacked model draws. If so, attacks on a source that draws nothing still use many
            draws of the attacked model to choose among restarts.
        widths: The widths of the mode "selection".

    Raises:
        ValueError: A mode is unknown, or ``random`` is None for a model of another package.
    """
    check_modes(modes)
    draws = is_random_by_type(source) if random is None else random
    if not draws or variant == "mean-field":
        settings = with_one_realization(settings, keep_selection=random_target and bool(transfer or variant))
    ending = (variant or "", f"from {transfer}" if transfer else "")
    if not settings.gradients:
        precision = "float32"
    if not isinstance(source, Defense) or not settings.gradients:
        return [Attack(join_words(method, *ending), source, settings, precision, None, variant, transfer)]
    attacks = []
    for mode in modes:
        title, surrogate = MODES[mode]
        name = join_words("" if method == "PGD" else method, title, *ending)
        mode_widths = widths if surrogate == SELECTION else DEFAULT_WIDTHS
        attacks.append(Attack(name, source, settings, precision, surrogate, variant, transfer, mode_widths))
    return attacks


def attack_label(identity: Mapping[str, Any]) -> str:
    """Returns a title made of an attack's identity: method, gradient, variant and source, without its settings."""
    method = METHOD_TITLES.get(identity["method"], identity["method"])
    surrogate = identity.get("surrogate") or ""
    gradient = SURROGATE_TITLES.get(surrogate, surrogate) if identity["gradients"] else ""
    source = (identity.get("source") or {}).get("name")
    ending = (identity.get("variant") or "", f"from {source}" if source else "")
    return join_words("" if gradient and method == "PGD" else method, gradient, *ending)


def is_random_by_type(source: nn.Module) -> bool:
    """Returns whether a model of our own types draws.

    Raises:
        ValueError: The model is of another type.
    """
    if isinstance(source, Defense | DropoutResNet32):
        return True
    if is_deterministic(source) or (isinstance(source, FrontEndClassifier) and is_deterministic(source.classifier)):
        return False
    raise ValueError(f"random is None, expected True or False for a {type(source).__name__}: whether it draws")


def check_modes(modes: Collection[str]) -> None:
    """Raises a ValueError for a mode that is not one of ``MODES``."""
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")


def with_one_realization(settings: AttackSettings, keep_selection: bool) -> AttackSettings:
    """Returns the settings with one realization per gradient or query, and no comparison on other draws.

    Args:
        settings: The settings of the attack.
        keep_selection: Whether to keep the draws that choose among restarts, for an attacked model that may draw.
    """
    if isinstance(settings, SquareSettings):
        return replace(settings, draws=1, fresh=False)
    selection = selection_draws(settings) if keep_selection else 1
    if isinstance(settings, APGDSettings):
        return replace(settings, realizations=1, selection=selection, fresh=False)
    return replace(settings, realizations=1, selection=selection)


def join_words(*words: str) -> str:
    return " ".join(word for word in words if word)
