"""The paper's attack modes (section 4): whose gradient is followed, and how it gets through the autoencoder."""

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from ..attacks import PGDSettings
from ..defense import AUTOENCODER_IDENTITY, Defense
from .evaluate import Attack

MODES = {
    "w-nfga-identity": ("W-NFGA identity", "identity"),
    "w-nfga-smooth": ("W-NFGA smooth", "smooth"),
    "w-aiga": ("W-AIGA", AUTOENCODER_IDENTITY),
}


def attacks_from(
    source: nn.Module,
    settings: PGDSettings,
    modes: Iterable[str] = tuple(MODES),
    precision: str = "float32",
    transfer: str = "",
) -> list[Attack]:
    """Attacks with the gradients of ``source``: one a mode from a ``Defense``, plain PGD from any other model.

    Args:
        source: the attacked model itself (white box), or another (transfer).
        settings: of PGD; a model that is not a ``Defense`` is taken to be deterministic and gets one realization.
        modes: keys of ``MODES``.
        precision: while crafting.
        transfer: where the source is not the attacked model, its name, for tables.
    """
    suffix = f" from {transfer}" if transfer else ""
    if not isinstance(source, Defense):
        return [Attack(f"PGD{suffix}", source, replace(settings, realizations=1), precision)]
    attacks = []
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        name, surrogate = MODES[mode]
        attacks.append(Attack(name + suffix, source.with_surrogate(surrogate), settings, precision))
    return attacks
