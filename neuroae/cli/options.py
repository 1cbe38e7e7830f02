"""Options that several verbs share, and options whose defaults depend on the data set."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import IMAGE_SIZE
from ..models.presets import PRESETS, Preset


def parse_folder(text: str) -> Path:
    """Parses the folder of an option.

    Raises:
        typer.BadParameter: The text is empty or blank, for example from a shell variable that is not set. As a path it
            would be the current folder.
    """
    if not text.strip():
        raise typer.BadParameter("it is empty, expected a folder; the current one is '.'")
    return Path(text)


def preset_option(field: str, help: str, *names: str, **limits: Any) -> Any:
    """Returns an option whose default is a field of the data set's preset. Its help shows the default of each preset.

    Args:
        field: The field of ``Preset``.
        help: The help text.
        *names: The option's names; by default it has the parameter's name.
        **limits: ``min`` and ``max``, or a ``parser`` and its ``metavar``.
    """
    defaults = "; ".join(f"{name}: {format_number(getattr(preset, field))}" for name, preset in PRESETS.items())
    return typer.Option(*names, help=help, show_default=defaults, **limits)


def parse_fraction(text: str) -> float:
    """Returns a number at least 0 that is written as one or as a quotient, like 8/255.

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        numbers = [float(part) for part in str(text).split("/")]
        value = numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]
    except (ValueError, ZeroDivisionError):
        numbers, value = [], math.nan
    if len(numbers) not in (1, 2) or not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{text!r} is not a number of at least 0, like 0.03 or 8/255")
    return value


def format_number(value: float | str) -> str:
    """Returns a number, or a name, as help texts show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def override_preset(dataset: str, **values: Any) -> Preset:
    """Returns the data set's preset with the user's values; a value of None keeps the preset's."""
    return replace(PRESETS[dataset], **{name: value for name, value in values.items() if value is not None})


DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the files of the data set. cifar10: cifar-10-batches-bin, or torchvision's "
        "cifar-10-batches-py. imagenette: imagenette2-160. image-folder: train/CLASS/* and test/CLASS/* or "
        "val/CLASS/*. digits: none needed."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Download cifar10 or imagenette into --data-dir if it is not there.")
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Height and width, in pixels, that images of imagenette and image-folder are resized to.",
        show_default=f"{IMAGE_SIZE}",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of images to use: the first ones, or the first ones of each class if they are sorted by class.",
        show_default="all",
    ),
]
HoldOut = Annotated[
    int,
    typer.Option(
        min=0,
        help="Number of training images not to learn from, drawn by the seed. `neuroae train` scores the model on "
        "them instead of the test images.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Device to compute on: cpu, cuda or cuda:1.", show_default="cuda if there is a GPU, else cpu"),
]
Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]
NumAtoms = Annotated[int | None, preset_option("atoms", "Number of atoms, L.", "--atoms", min=1)]
Patch = Annotated[int | None, preset_option("patch", "Side of a patch in pixels, n.", min=1)]
