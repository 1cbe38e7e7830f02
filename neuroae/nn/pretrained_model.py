"""What models that can be saved and loaded by name have in common."""

from pathlib import Path
from typing import Any, Self

from torch import nn


class PretrainedModel(nn.Module):
    """A model that is kept as a folder, in the way of the Hugging Face hub."""

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> Self:
        """A saved model, in evaluation mode and float32.

        Args:
            name_or_folder: a folder that ``save_pretrained`` or ``neuroae train`` wrote, or the name of a model that
                ships with the package, "cifar10". A folder that holds a model wins over a shipped name.

        Raises:
            FileNotFoundError: there is no such name or folder, or a file is missing.
            ValueError: a file is damaged, a tensor does not fit its digest, weights and configuration do not fit
                each other, a weight is NaN or infinite, or the model is of another class; the message names the file,
                and the field or tensor. Folders of earlier versions hold no digests, which is a warning.
        """
        from ..models import load_pretrained  # which imports the subclasses of this class

        model, _ = load_pretrained(name_or_folder)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise ValueError(f"{name_or_folder} holds a {kind}, expected a {cls.__name__}; use {kind}.from_pretrained")
        return model

    def save_pretrained(self, folder: str | Path, notes: dict[str, Any] | None = None, half: bool = False) -> None:
        """Writes ``model.safetensors``, ``config.json`` and a model card, ``README.md``.

        Args:
            folder: made if missing; files of these names are replaced.
            notes: anything that JSON holds, kept in the configuration under "notes". The card shows those that
                ``neuroae train`` writes (see ``neuroae.models.card``).
            half: store the weights of convolutions and linear layers as float16, in half the space: each changes by
                at most 2^-11 of itself, or 2^-25. Everything else stays as it is, bit for bit.

        Raises:
            TypeError: a part of the model is not of a kind that can be saved, or a note is nothing that JSON holds.
            ValueError: a weight is beyond float16's range, NaN or infinite, or a note of the card's has another form.
        """
        from ..models import save_pretrained

        save_pretrained(self, folder, notes, half)
