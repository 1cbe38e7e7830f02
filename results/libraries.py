"""Attacks of three libraries as functions of one kind, for ``results.crosscheck``.

foolbox has no margin loss, and that of torchattacks is cut off at 0. Both are given one: foolbox's PGD by overriding
``get_loss_fn``, which its source invites to; torchattacks' UPGD by its argument ``loss``, which takes a function, with
``decay=0``, which makes it PGD.
"""

from collections.abc import Callable

import eagerpy
import foolbox
import torch
import torchattacks
from torch import Tensor, nn

from neuroae.attacks import APGDSettings, LossName, PGDSettings, apgd, pgd

EPSILON, STEP_SIZE = 8 / 255, 1 / 225
LOSSES: tuple[LossName, ...] = ("cross-entropy", "margin")
STEPS = (20, 100)
OURS = "ours"
SEED = 0

Craft = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class MarginPGD(foolbox.attacks.LinfPGD):
    """foolbox's PGD with the margin as its loss."""

    def get_loss_fn(self, model: foolbox.Model, labels: eagerpy.Tensor) -> Callable[[eagerpy.Tensor], eagerpy.Tensor]:
        return lambda images: eagerpy.astensor(margin(model(images).raw, labels.raw).sum())


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best other logit minus that of the true class: not our own loss, which is what is checked."""
    best, second = logits.topk(2).indices.T
    other = torch.where(best == labels, second, best)
    rows = torch.arange(len(labels))
    return logits[rows, other] - logits[rows, labels]


def with_foolbox(loss: LossName, steps: int) -> Craft:
    attack = {"cross-entropy": foolbox.attacks.LinfPGD, "margin": MarginPGD}[loss](
        abs_stepsize=STEP_SIZE, steps=steps, random_start=False
    )

    def craft(model: nn.Module, images: Tensor, labels: Tensor, _ids: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        found: Tensor = attack(wrapped, images, labels, epsilons=EPSILON)[1]
        return found

    return craft


def with_torchattacks(loss: LossName, steps: int) -> Craft:
    budget = {"eps": EPSILON, "alpha": STEP_SIZE, "steps": steps, "random_start": False}

    def craft(model: nn.Module, images: Tensor, labels: Tensor, _ids: Tensor) -> Tensor:
        def rise(shown: Tensor, true: Tensor, _targets: None) -> Tensor:
            return margin(model(shown), true).sum()

        attack = (
            torchattacks.PGD(model, **budget)
            if loss == "cross-entropy"
            else torchattacks.UPGD(model, **budget, loss=rise, decay=0.0)
        )
        return attack(images, labels).detach()

    return craft


def with_ours(loss: LossName, steps: int, restarts: int = 1, random_start: bool = False) -> Craft:
    settings = PGDSettings(EPSILON, STEP_SIZE, steps, restarts, 1, loss=loss, random_start=random_start)
    return lambda model, images, labels, ids: pgd(model, images, labels, settings, seed=SEED, image_ids=ids).images


def our_apgd(model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
    settings = APGDSettings(EPSILON, realizations=1, random_start=True, fresh=False)
    return apgd(model, images, labels, settings, seed=SEED, image_ids=ids).images


def their_apgd(model: nn.Module, images: Tensor, labels: Tensor, _ids: Tensor) -> Tensor:
    return torchattacks.APGD(model, eps=EPSILON, steps=APGDSettings().steps, seed=SEED)(images, labels).detach()


def comparisons() -> dict[str, dict[str, Craft]]:
    """By attack and library, ours first."""
    found: dict[str, dict[str, Craft]] = {
        f"PGD, {loss}, {steps} steps": {
            OURS: with_ours(loss, steps),
            "foolbox": with_foolbox(loss, steps),
            "torchattacks": with_torchattacks(loss, steps),
        }
        for loss in LOSSES
        for steps in STEPS
    }
    found["APGD, cross-entropy, 100 steps"] = {OURS: our_apgd, "torchattacks": their_apgd}
    return found
