"""Attack modes, the paper's (section 4) and ours: how the gradient gets through the autoencoder."""

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from ..attacks import APGDSettings, SquareSettings
from ..attacks.settings import selection_draws
from ..classifiers import ResNet32
from ..defense import AUTOENCODER_IDENTITY, Defense
from ..encoder import SELECTION
from .attack import DEFAULT_WIDTHS, Attack, AttackSettings, Variant, Widths

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
