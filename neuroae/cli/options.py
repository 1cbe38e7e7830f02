"""Options that several verbs share, and their defaults where these depend on the data set."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import IMAGE_SIZE
from ..models.presets import PRESETS, Preset


def folder(text: str) -> Path:
    """The folder of an option. An empty text, as of a variable that is not set, would be the current one."""
    if not text.strip():
        raise typer.BadParameter("it is empty, expected a folder; the current one is '.'")
    return Path(text)


DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the files: of cifar10, cifar-10-batches-bin or torchvision's cifar-10-batches-py; "
        "of imagenette, imagenette2-160; of image-folder, train/CLASS/* and test/CLASS/* or val/CLASS/*."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch cifar10 or imagenette into the data folder if it is not there.")
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Height and width that images of imagenette and image-folder are brought to.",
        show_default=f"{IMAGE_SIZE}",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Use only so many images, from the front; from that of each class where they are sorted by class.",
        show_default="all",
    ),
]
HoldOut = Annotated[
    int,
    typer.Option(
        min=0,
        help="Training images not to learn from, drawn by the seed; "
        "`neuroae train` scores on them in place of the test images.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="a GPU if there is one")]
Seed = Annotated[int, typer.Option(help="Of all random draws.")]


def preset_option(field: str, help: str, **limits: Any) -> Any:
    """An option, None unless given, whose default is the data set's own and is shown for each."""
    defaults = "; ".join(f"{name}: {getattr(preset, field):.4g}" for name, preset in PRESETS.items())
    return typer.Option(help=help, show_default=defaults, **limits)


def overridden(dataset: str, **values: Any) -> Preset:
    """The data set's settings, with those that the user gave in their place."""
    return replace(PRESETS[dataset], **{name: value for name, value in values.items() if value is not None})


Atoms = Annotated[int | None, preset_option("atoms", "L, the number of atoms.", min=1)]
Patch = Annotated[int | None, preset_option("patch", "n, the side of a patch.", min=1)]
Epsilon = Annotated[
    float | None,
    preset_option("epsilon", "L-infinity budget that the dead zone is made for, pixels in [0, 1].", min=0, max=1),
]
