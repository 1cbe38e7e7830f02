"""One evaluation as data, and the attacks that several evaluations share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from neuroae import Defense
from neuroae.attacks import PGDSettings
from neuroae.data import DatasetName
from neuroae.evaluation import Attack, attacks_from
from neuroae.evaluation.attack import Perturbation
from neuroae.nn.encoder import SELECTION
from results.inputs import PUBLISHED_TITLES

CRAFTING = "bfloat16"


def pw_t(name: str, source: Defense, settings: PGDSettings) -> list[Attack]:
    """Returns the transfers from one source, without duplicates."""
    attacks = attacks_from(source, settings, precision=CRAFTING, transfer=name)
    if source.encoder.quantize:
        return attacks
    # A surrogate is the derivative of the quantizer: without one, both kinds of W-NFGA are the same attack.
    w_nfga, _, w_aiga = attacks
    return [replace(w_nfga, name=f"W-NFGA from {name}"), w_aiga]


def selection_attack(model: Defense, name: str, **settings: Any) -> Attack:
    """Returns the attack through the selection; ``settings`` replace those of its recipe."""
    (attack,) = attacks_from(model, PGDSettings.selection_recipe(**settings), [SELECTION], CRAFTING)
    return replace(attack, name=name)


@dataclass(frozen=True)
class Experiment:
    """One evaluation on test images.

    Attributes:
        summary: What it evaluates, in one line.
        make_attacks: Returns its attacks; its parameters are the roles of the models that it needs. ``model`` stands
            for the attacked one.
        num_images: The number of test images: the first ones of CIFAR-10, or the first ones of each class.
        attacked: The role of the attacked model.
        block: Images in a batch; restarts multiply it.
        write_page: A function that writes a page of its own into the results folder, or None.
        dataset: The name of the data set.
        shares_transfers: Whether images that are crafted on other models are kept for other experiments on the same
            images (see ``results.attacks.SharedTransfer``).
    """

    summary: str
    make_attacks: Callable[..., Sequence[Perturbation]]
    num_images: int
    attacked: str = "defense"
    block: int = 50
    write_page: Callable[[Path], None] | None = None
    dataset: DatasetName = "cifar10"
    shares_transfers: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        """The models that it needs, the attacked one first."""
        return tuple(dict.fromkeys((self.attacked, *self.parameters().values())))

    def parameters(self) -> dict[str, str]:
        """Returns the role of the model that each parameter of ``make_attacks`` takes."""
        names = inspect.signature(self.make_attacks).parameters
        return {name: self.attacked if name == "model" else name for name in names}

    def attacks(self, models: Mapping[str, nn.Module]) -> Sequence[Perturbation]:
        """Returns its attacks.

        Args:
            models: The models by their role, those of ``roles`` at least.
        """
        return self.make_attacks(**{name: models[role] for name, role in self.parameters().items()})

    def title(self, paths: Mapping[str, str | Path]) -> str:
        """Returns the attacked model's name in reports, from the path that it was loaded from."""
        return PUBLISHED_TITLES.get(self.attacked) or Path(paths[self.attacked]).name
