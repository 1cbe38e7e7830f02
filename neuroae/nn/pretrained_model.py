"""The base class of models that are saved to a folder and loaded by name."""

from pathlib import Path
from typing import Any, Self

from torch import nn


class PretrainedModel(nn.Module):
    """A model that is saved as a folder with the layout of the Hugging Face hub."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> Self:
        """Loads a saved model, in evaluation mode and float32.

        A warning is given for a folder that an earlier version wrote, without digests of the tensors.

        Args:
            name_or_folder: A folder that ``save_pretrained`` or ``neuroae train`` wrote, or the name of a model that
                ships with the package, such as "cifar10". A folder that holds a model has precedence over a shipped
                name.

        Raises:
            FileNotFoundError: No such name or folder exists, or a file is missing.
            ValueError: A file is damaged, a tensor does not match its digest, weights and configuration do not match,
                a weight is NaN or infinite, or the model has another class. The message names the file, and the field
                or tensor.
        """
        from ..models import load_pretrained  # late, since it imports the subclasses of this class

        model, _ = load_pretrained(name_or_folder)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise ValueError(f"{name_or_folder} holds a {kind}, expected a {cls.__name__}; use {kind}.from_pretrained")
        return model

    def save_pretrained(self, folder: str | Path, notes: dict[str, Any] | None = None, half: bool = False) -> None:
        """Writes ``model.safetensors``, ``config.json`` and a model card, ``README.md``.

        Args:
            folder: The folder, created if missing. Files with these names are replaced.
            notes: Values that JSON can hold, saved in the configuration under "notes". The card shows the notes that
                ``neuroae train`` writes (see ``neuroae.models.card``).
            half: Stores the weights of convolutions and linear layers as float16, in half the space. Each changes by
                at most 2^-11 of its value, or by 2^-25 near 0. All other tensors are stored bit for bit.

        Raises:
            TypeError: A part of the model has a class that cannot be saved, or JSON cannot hold a note.
            ValueError: A weight is beyond float16's range, NaN or infinite, or a note does not fit the card.
        """
        from ..models import save_pretrained

        save_pretrained(self, folder, notes, half)
