"""The evaluations behind the paper's tables, and those that the paper did not try.

Attacks on a defense's gradients are crafted in bfloat16 unless a name says otherwise, those on a classifier's alone
and searches in float32; scoring is in float32 always. Sources for PW-T are the unsupervised defenses, with and without
activation/quantization; the source for B-T is an adversarially trained classifier. A model is loaded when an
experiment first asks for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from neuroae import Defense
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings
from neuroae.attacks.settings import GradientSettings
from neuroae.evaluation import Attack, attacks_from
from neuroae.evaluation.attack import Variant
from neuroae.pretrained import load_pretrained
from results.weights import classifier_of

CRAFTED = "bfloat16"
W_NFGA = ("w-nfga-identity", "w-nfga-smooth")
QUANTIZED, UNQUANTIZED = "unsupervised", "unquantized"


@dataclass(frozen=True)
class Models:
    """What is attacked and what attacks are crafted on: shipped names or folders, and a file of foreign weights.

    Attributes:
        defense, unsupervised, unquantized, undefended: names for ``load_pretrained``.
        adversarial: safetensors with the state of a ResNet-32 that was trained on adversarial images; None where no
            experiment needs it.
        device: where they all compute.
    """

    defense: str
    unsupervised: str
    unquantized: str
    undefended: str
    adversarial: Path | None
    device: torch.device

    @cached_property
    def attacked(self) -> nn.Module:
        return load_pretrained(self.defense)[0].to(self.device)

    @cached_property
    def plain(self) -> nn.Module:
        return load_pretrained(self.undefended)[0].to(self.device)

    @cached_property
    def adversarially_trained(self) -> nn.Module:
        if self.adversarial is None:
            raise ValueError("weights are missing: this experiment needs those of an adversarially trained ResNet-32")
        return classifier_of(self.adversarial).to(self.device)

    @cached_property
    def quantized_source(self) -> Defense:
        return Defense.from_pretrained(self.unsupervised).to(self.device)

    @cached_property
    def unquantized_source(self) -> Defense:
        """The paper's worst."""
        return Defense.from_pretrained(self.unquantized).to(self.device)


def pw_t(models: Models, settings: PGDSettings) -> list[Attack]:
    """All gradients on both sources."""
    sources = {QUANTIZED: models.quantized_source, UNQUANTIZED: models.unquantized_source}
    return [attack for name, source in sources.items() for attack in all_gradients(name, source, settings)]


def all_gradients(name: str, source: Defense, settings: PGDSettings) -> list[Attack]:
    """Of a source with this name in tables; those that differ."""
    attacks = attacks_from(source, settings, precision=CRAFTED, transfer=name)
    if source.encoder.quantize:
        return attacks
    # A surrogate is the derivative of the quantizer: without one, both kinds of W-NFGA are the same attack.
    w_nfga, _, w_aiga = attacks
    return [replace(w_nfga, name=f"W-NFGA from {name}"), w_aiga]


def table1(models: Models) -> list[Attack]:
    """The defense under white-box, PW-T and B-T attacks at the paper's default settings."""
    settings = PGDSettings()
    b_t = attacks_from(models.adversarially_trained, settings, transfer="adversarially trained")
    return attacks_from(models.attacked, settings, W_NFGA, CRAFTED) + pw_t(models, settings) + b_t


def precision_check(models: Models) -> list[Attack]:
    """One attack of Table 1 crafted in both precisions, the same draws in neither."""
    found = [
        attacks_from(models.attacked, PGDSettings(), ("w-nfga-smooth",), precision)[0]
        for precision in ("float32", CRAFTED)
    ]
    return [replace(attack, name=f"{attack.name}, crafted in {attack.precision}") for attack in found]


def table3_undefended(models: Models) -> list[Attack]:
    return attacks_from(models.plain, PGDSettings())


def table3_adversarial(models: Models) -> list[Attack]:
    """The default attack, and the first restart of the paper's worst case for this classifier: margin loss, 100 steps.

    ``results.worst_case`` adds the other 49 restarts where they can still change a verdict.
    """
    long = PGDSettings(steps=100, loss="margin")
    worst = attacks_from(models.adversarially_trained, long, method="PGD margin, 100 steps")
    return attacks_from(models.adversarially_trained, PGDSettings()) + worst


def table6(models: Models) -> list[Attack]:
    """The paper's worst transfer at the default settings, and with each of them raised in turn (section 8.7)."""
    raised = {
        "default": PGDSettings(),
        "N_S 100": PGDSettings(steps=100),
        "N_E 100": PGDSettings(realizations=100),
        "N_R 10": PGDSettings(restarts=10),
    }
    source = models.unquantized_source
    return [
        attack
        for name, settings in raised.items()
        for attack in attacks_from(source, settings, ("w-aiga",), CRAFTED, UNQUANTIZED, method=f"{name}:")
    ]


def beyond(models: Models) -> list[Attack]:
    """What the paper did not try, white-box and on its worst source.

    The ensemble as deployed has 10 members, so 4 gradients make 40 realizations.
    """
    model, source = models.attacked, models.unquantized_source
    deployed, margin = PGDSettings(realizations=4), PGDSettings(loss="margin")

    def white_box(settings: GradientSettings, variant: Variant | None = None, method: str = "PGD") -> list[Attack]:
        return attacks_from(model, settings, ("w-nfga-smooth",), CRAFTED, variant=variant, method=method)

    def transferred(settings: GradientSettings, variant: Variant | None = None, method: str = "PGD") -> list[Attack]:
        return attacks_from(source, settings, ("w-aiga",), CRAFTED, UNQUANTIZED, variant=variant, method=method)

    attacks = transferred(PGDSettings()) + attacks_from(model, PGDSettings(), ("w-aiga",), CRAFTED)
    for craft in (white_box, transferred):
        attacks += craft(deployed, "ensemble") + craft(PGDSettings(), "mean-field")
        attacks += craft(margin, method="PGD margin") + craft(APGDSettings(), method="APGD")
    return attacks + attacks_from(model, SquareSettings(queries=1000, draws=10), method="Square")


@dataclass(frozen=True)
class Experiment:
    """
    Attributes:
        attacks: made of the models.
        attacked: the model that is scored.
        name: what tables call it.
        images: of the test set, from the front.
        block: images in a batch; restarts multiply it.
    """

    attacks: Callable[[Models], list[Attack]]
    attacked: Callable[[Models], nn.Module]
    name: Callable[[Models], str]
    images: int
    block: int = 50


DEFENSE: tuple[Callable[[Models], nn.Module], Callable[[Models], str]] = (
    lambda models: models.attacked,
    lambda models: Path(models.defense).name,
)
EXPERIMENTS = {
    "table1": Experiment(table1, *DEFENSE, 1000),
    "precision": Experiment(precision_check, *DEFENSE, 100),
    "table3-undefended": Experiment(
        table3_undefended, lambda models: models.plain, lambda models: Path(models.undefended).name, 1000
    ),
    "table3-adversarial": Experiment(
        table3_adversarial,
        lambda models: models.adversarially_trained,
        lambda _: "adversarially trained ResNet-32",
        1000,
    ),
    "table6": Experiment(table6, *DEFENSE, 200, 10),
    "beyond": Experiment(beyond, *DEFENSE, 200),
}
