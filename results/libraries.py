"""Attacks of foolbox and torchattacks as perturbations, so that an evaluation compares them with ours, and its page.

foolbox has no margin loss, and the one of torchattacks is cut off at 0. Both get one here: foolbox's PGD by
overriding ``get_loss_fn``, as its source suggests; torchattacks' UPGD by its argument ``loss``, which takes a
function, with ``decay=0``, which makes it PGD.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import eagerpy
import foolbox
import torch
import torchattacks
from torch import Tensor, nn

from neuroae.attacks import APGDSettings, Perturbed, PGDSettings
from neuroae.evaluation import Results, Scoring, load_evaluation
from neuroae.evaluation.attack import Progress
from neuroae.evaluation.own_attack import counting_passes
from neuroae.evaluation.scoring import Block
from neuroae.evaluation.statistics import vote_accuracy
from neuroae.utils.markdown import table
from results.inputs import attack_names, identity
from results.outputs import interval_cell, write_results

Library = Literal["foolbox", "torchattacks"]
VERSIONS = {"foolbox": foolbox.__version__, "torchattacks": torchattacks.__version__}


@dataclass(frozen=True, eq=False)
class LibraryAttack:
    """An attack of another library on the attacked model, which must be deterministic.

    Attributes:
        name: The name in tables.
        library: The library whose attack it is.
        settings: The settings of PGD from the image itself, or of torchattacks' APGD from a random point. Settings
            that the library does not have must be at their defaults.
    """

    name: str
    library: Library
    settings: PGDSettings | APGDSettings

    def __post_init__(self) -> None:
        if (self.library, type(self.settings)) not in CRAFT:
            raise ValueError(
                f"settings is {type(self.settings).__name__}, which {self.library} has no attack for here"
            )

    @property
    def passes(self) -> int:
        return self.settings.gradients

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        craft = CRAFT[self.library, type(self.settings)]
        images = craft(model, block.images, block.labels, self.settings, scoring.seed)
        progress(self.passes * len(images))
        uncounted = torch.zeros_like(block.labels)  # the libraries do not count unusable gradients
        return Perturbed(images, self.passes, 0, uncounted, uncounted)

    def identity(self) -> dict[str, Any]:
        return {
            "method": f"{self.library} {'pgd' if isinstance(self.settings, PGDSettings) else 'apgd'}",
            "family": "white-box",
            "access": "white-box",
            "library": f"{self.library} {VERSIONS[self.library]}",
            "settings": asdict(self.settings),
            "gradients": self.passes,
            "forwards": 0,
        }


class MarginPGD(foolbox.attacks.LinfPGD):
    """foolbox's PGD with the margin as its loss."""

    def get_loss_fn(self, model: foolbox.Model, labels: eagerpy.Tensor) -> Callable[[eagerpy.Tensor], eagerpy.Tensor]:
        return lambda images: eagerpy.astensor(margin(model(images).raw, labels.raw).sum())


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns (B,) margins: the best other logit minus that of the true class.

    It does not come from ``neuroae.attacks``, whose loss is what this experiment checks.
    """
    best, second = logits.topk(2).indices.T
    other = torch.where(best == labels, second, best)
    rows = torch.arange(len(labels))
    return logits[rows, other] - logits[rows, labels]


def foolbox_pgd(model: nn.Module, images: Tensor, labels: Tensor, settings: PGDSettings, seed: int) -> Tensor:
    kind = {"cross-entropy": foolbox.attacks.LinfPGD, "margin": MarginPGD}[settings.loss]
    attack = kind(abs_stepsize=settings.step_size, steps=settings.steps, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    perturbed: Tensor = attack(wrapped, images, labels, epsilons=settings.epsilon)[1]
    return perturbed


def torchattacks_pgd(model: nn.Module, images: Tensor, labels: Tensor, settings: PGDSettings, seed: int) -> Tensor:
    def sum_of_margins(inputs: Tensor, true: Tensor, _targets: None) -> Tensor:
        return margin(model(inputs), true).sum()

    budget = {"eps": settings.epsilon, "alpha": settings.step_size, "steps": settings.steps, "random_start": False}
    if settings.loss == "cross-entropy":
        attack = torchattacks.PGD(model, **budget)
    else:
        attack = torchattacks.UPGD(model, **budget, loss=sum_of_margins, decay=0.0)
    return attack(images, labels).detach()


def torchattacks_apgd(model: nn.Module, images: Tensor, labels: Tensor, settings: APGDSettings, seed: int) -> Tensor:
    return torchattacks.APGD(model, eps=settings.epsilon, steps=settings.steps, seed=seed)(images, labels).detach()


CRAFT: dict[tuple[Library, type], Callable[..., Tensor]] = {
    ("foolbox", PGDSettings): foolbox_pgd,
    ("torchattacks", PGDSettings): torchattacks_pgd,
    ("torchattacks", APGDSettings): torchattacks_apgd,
}


AUTOATTACK_STEPS = 100
AUTOATTACK_QUERIES = 5000


@dataclass(frozen=True, eq=False)
class AutoAttack:
    """AutoAttack's version "standard" (Croce and Hein, 2020), of torchattacks' parts with the published budgets.

    torchattacks' own ``AutoAttack`` leaves APGD and FAB at 10 steps.

    Attributes:
        epsilon: The radius of the linf ball.
        classes: The number of classes.
        steps: Of APGD, targeted APGD and targeted FAB.
        queries: Of Square.
    """

    epsilon: float
    classes: int = 10
    steps: int = AUTOATTACK_STEPS
    queries: int = AUTOATTACK_QUERIES

    @property
    def name(self) -> str:
        return "AutoAttack, standard"

    @property
    def passes(self) -> int:
        return 1

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        common = {"eps": self.epsilon, "seed": scoring.seed}
        parts = [
            torchattacks.APGD(model, steps=self.steps, loss="ce", **common),
            torchattacks.APGDT(model, steps=self.steps, n_classes=self.classes, **common),
            torchattacks.FAB(model, steps=self.steps, multi_targeted=True, n_classes=self.classes, **common),
            torchattacks.Square(model, n_queries=self.queries, **common),
        ]
        with counting_passes(model) as passes:
            images = torchattacks.MultiAttack(parts)(block.images, block.labels).detach()
        progress(len(images))
        # The parts do not say which image took which pass, so each counts the mean.
        means = [passes[kind] / len(images) for kind in ("gradients", "forwards")]
        none = torch.zeros_like(block.labels)
        perturbed = Perturbed(images, *(round(mean) for mean in means), none, none)
        details = {
            kind: torch.full((len(images),), mean) for kind, mean in zip(("gradients", "forwards"), means, strict=True)
        }
        return perturbed._replace(details=details)

    def identity(self) -> dict[str, Any]:
        return {
            "method": "autoattack",
            "family": "white-box",
            "access": "white-box",
            "library": f"torchattacks {VERSIONS['torchattacks']}",
            "settings": {"epsilon": self.epsilon, "norm": "linf", "steps": self.steps, "queries": self.queries},
            "gradients": self.steps,
            "forwards": self.queries,
        }


OURS = "ours"  # the library of our attacks, in the names of the crosscheck's attacks: ATTACK, LIBRARY
CROSSCHECK_COLUMNS = (
    "attack",
    "library",
    "accuracy",
    "95% interval",
    "verdicts equal to ours",
    "l-infinity x 255",
    "seconds",
)
CROSSCHECK_NOTE = """\
The model is the {model}; the images are the first {images:,} of {data}. Epsilon is 8/255 and the step 1/225. PGD
starts at the image. APGD starts at a random point, each library at its own, because that of torchattacks always does.
A verdict is whether the model, in float32, is still right; "l-infinity" is the largest perturbation, measured in
double precision. The seconds say what to expect, and compare nothing: other work may have run beside some of the
attacks.

foolbox has no margin loss, and that of torchattacks is cut off at 0. Both were given one: foolbox's `LinfPGD` by
overriding `get_loss_fn`, as its source suggests; torchattacks' `UPGD` by its argument `loss`, which takes a function,
with `decay=0`, which makes it PGD.

Made by `python -m results crosscheck --data-dir DIR --weights FILE`; `report.html` and the files beside it hold the
evaluation in full and the versions."""


def write_crosscheck(folder: Path) -> None:
    """Writes the page of the evaluation ``crosscheck`` into its folder."""
    results = load_evaluation(folder)
    text = table(CROSSCHECK_COLUMNS, crosscheck_rows(results), text_columns=2)
    data = identity(results)["data"]
    note = CROSSCHECK_NOTE.format(model=results.model, images=data["images"], data=data["name"])
    write_results(folder, "Our attacks beside foolbox and torchattacks", [text, note])


def crosscheck_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each attack of each library."""
    for name in attack_names(results):
        attack, _, library = name.rpartition(", ")
        records, ours = results.records[name], results.records[f"{attack}, {OURS}"]
        accuracy = vote_accuracy(records)
        equal = sum(
            (record.vote == record.label) == (other.vote == other.label)
            for record, other in zip(records, ours, strict=True)
        )
        yield (
            attack,
            library,
            f"{accuracy.value:.1%}",
            interval_cell(*accuracy.interval()),
            "" if library == OURS else f"{equal / len(records):.1%}",
            f"{255 * max(record.linf for record in records):.5f}",
            f"{results.seconds[name]:.0f}",
        )
