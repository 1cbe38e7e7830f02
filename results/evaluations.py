"""The evaluations behind the paper's tables, and those that the paper did not try.

Attacks on a defense's gradients are crafted in bfloat16 unless a name says otherwise, those on a classifier's alone
and searches in float32; scoring is in float32 always. Sources for PW-T are the unsupervised defenses, with and without
activation/quantization; the source for B-T is an adversarially trained classifier. A model is loaded when an
experiment first asks for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroae import Defense
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings
from neuroae.attacks.settings import GradientSettings
from neuroae.evaluation import Attack, attacks_from
from neuroae.evaluation.attack import Perturbation, Variant
from neuroae.models import load_pretrained
from neuroae.nn.encoder import SELECTION
from results.parts import NARROW, WIDE, FixedCut, StraightThrough, with_part
from results.snapshots import snapshots
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


def of_selection(model: Defense, name: str, **settings: Any) -> Attack:
    (attack,) = attacks_from(model, PGDSettings.selection_recipe(**settings), [SELECTION], CRAFTED)
    return replace(attack, name=name)


def selection(models: Models) -> list[Attack]:
    """The gradient through the selection: its recipe, another loss, a target, and more realizations."""
    model = models.attacked
    return [
        of_selection(model, "selection"),
        of_selection(model, "selection, cross-entropy", loss="cross-entropy"),
        replace(of_selection(model, "selection, targeted"), targeted=True),
        of_selection(model, "selection, N_E 10", realizations=10),
    ]


def selection_more(models: Models) -> list[Attack]:
    """Much more of steps or of realizations."""
    model = models.attacked
    return [
        of_selection(model, "selection, N_S 100", steps=100),
        of_selection(model, "selection, N_E 40", realizations=40),
    ]


def selection_of_sources(model: Defense) -> list[Attack]:
    """On the unsupervised defenses, as white-box attacks."""
    return [of_selection(model, "selection"), of_selection(model, "selection, N_E 10", realizations=10)]


def selection_parts(models: Models) -> list[Attack]:
    """What each part of the gradient does at the recipe's budget."""
    model = models.attacked
    others = {
        "true clamp": model.with_surrogate(SELECTION, clamp_width=NARROW),
        "identity for the clamp": model.with_surrogate(SELECTION, clamp_width=WIDE),
        "fixed cut": with_part(model, FixedCut),
        "straight-through top T": with_part(model, StraightThrough),
    }
    return [
        of_selection(model, "selection"),
        *(
            Attack(f"selection, {name}", source, PGDSettings.selection_recipe(**more), CRAFTED)
            for name, source in others.items()
            for more in [{"realizations": 3} if name.startswith("straight") else {}]
        ),
    ]


def compared(models: Models, name: str, **settings: Any) -> list[Attack]:
    """The attacks whose curves are drawn: ours and the paper's two, with these settings, which ``name`` says."""
    paper = PGDSettings(**{"realizations": 10} | settings)
    (white_box,) = attacks_from(models.attacked, paper, ("w-nfga-smooth",), CRAFTED)
    (transfer,) = attacks_from(models.unquantized_source, paper, ("w-aiga",), CRAFTED, UNQUANTIZED)
    ours = of_selection(models.attacked, "selection", **settings)
    return [replace(attack, name=f"{attack.name}, {name}") for attack in (ours, white_box, transfer)]


def curve_epsilon(models: Models) -> list[Attack]:
    """At 0 nothing is attacked: those are the clean images."""
    sizes = (1, 2, 4, 8, 16)
    return [
        attack
        for size in sizes
        for attack in compared(models, f"epsilon {size}/255", epsilon=size / 255, step_size=size / 8 / 225)
    ]


def curve_realizations(models: Models) -> list[Attack]:
    return [
        attack for count in (1, 2, 5, 10, 20, 40) for attack in compared(models, f"N_E {count}", realizations=count)
    ]


def curve_steps(models: Models) -> list[Perturbation]:
    """One run of the largest number of steps each, seen along the way."""
    counts = (1, 2, 5, 10, 20, 50, 100, 200)
    runs = compared(models, "N_S", steps=counts[-1], realizations=2)
    return [step for attack in runs for step in snapshots(attack, counts)]


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

    attacks: Callable[[Models], Sequence[Perturbation]]
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
    "selection": Experiment(selection, *DEFENSE, 1000),
    "selection-more": Experiment(selection_more, *DEFENSE, 1000),
    "selection-unsupervised": Experiment(
        lambda models: selection_of_sources(models.quantized_source),
        lambda models: models.quantized_source,
        lambda models: Path(models.unsupervised).name,
        1000,
    ),
    "selection-unquantized": Experiment(
        lambda models: selection_of_sources(models.unquantized_source),
        lambda models: models.unquantized_source,
        lambda models: Path(models.unquantized).name,
        1000,
    ),
    "selection-parts": Experiment(selection_parts, *DEFENSE, 200),
    "curve-epsilon": Experiment(curve_epsilon, *DEFENSE, 200),
    "curve-steps": Experiment(curve_steps, *DEFENSE, 200),
    "curve-realizations": Experiment(curve_realizations, *DEFENSE, 200),
}
