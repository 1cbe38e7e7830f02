"""A saved model as the start of a training: another cycle of the learning rate, or other data."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..defense import Defense
from ..pretrained import class_names, load_pretrained
from ..pretrained.description import describe
from ..storage import difference


@dataclass(frozen=True, eq=False)
class Start:
    """Where the weights come from.

    Attributes:
        name: as the user gave it: a folder, or a name that ships with the package.
        model: that is there.
        notes: what is known of it.
    """

    name: str
    model: nn.Module
    notes: dict[str, Any]

    @classmethod
    def load(cls, name_or_folder: str) -> "Start":
        return cls(name_or_folder, *load_pretrained(name_or_folder))

    def atoms(self) -> Tensor:
        """Those of a defense.

        Raises:
            ValueError: it is a classifier alone.
        """
        if not isinstance(self.model, Defense):
            raise ValueError(f"init is {self.name!r}, a classifier without a dictionary, expected a defense")
        return self.model.encoder.atoms

    def copy_into(self, model: nn.Module) -> None:
        """Gives a new model these weights.

        Raises:
            ValueError: the two are not alike; the message says where.
        """
        there, here = describe(self.model), describe(model)
        if there != here:
            raise ValueError(f"init is another model: {difference(Path(self.name).name, there, here)}")
        if isinstance(model, Defense) and not torch.equal(model.encoder.atoms, self.atoms()):
            raise ValueError("init has other atoms than --dictionary; leave that option out to take them from init")
        model.load_state_dict(self.model.state_dict())

    def compare_classes(self, data: ImageSet) -> None:
        """Warns where the names of the start's classes are known and the images have others."""
        names = class_names(self.notes, len(data.classes))
        if names is not None and names != data.classes:
            warnings.warn(
                f"init was trained on the classes {', '.join(names)}, and {data.name} has {', '.join(data.classes)}: "
                "what it knows of a class starts out under another name",
                stacklevel=2,
            )

    def runs(self) -> list[dict[str, Any]]:
        """The trainings that made these weights, oldest first, as notes keep them."""
        kept = {"run", "epochs", "seconds", "versions", "continued_with"}
        last = {name: note for name, note in self.notes.items() if name in kept}
        return [*self.notes.get("earlier", []), last]
