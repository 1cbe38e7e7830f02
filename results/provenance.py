"""What a result was made with and of."""

from pathlib import Path
from typing import Any

from torch import nn

from neuroae.data import ImageSet
from neuroae.kernels import engine_name
from neuroae.models.fingerprints import fingerprint
from neuroae.reports.report import digest
from neuroae.utils.versions import versions


def provenance(name: str, model: nn.Module, data: ImageSet) -> dict[str, Any]:
    """The model's name and fingerprint, the images, the engine and the versions, as JSON holds them.

    Args:
        name: of the model, or its path.
        model: that was measured.
        data: that it was measured on.
    """
    return {
        "model": Path(name).name,
        "fingerprint": fingerprint(model),
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "engine": engine_name("cpu"),
        "versions": versions(),
    }


def unchanging(made: dict[str, Any]) -> dict[str, Any]:
    """``provenance`` without the commit: what one commit began another may go on with."""
    versions = {name: version for name, version in made["versions"].items() if name != "commit"}
    return made | {"versions": versions}


def in_words(made: dict[str, Any]) -> str:
    """``provenance`` in a line, for a page."""
    data = made["data"]
    parts = [
        f"Model {made['model']}, {digest(made)}",
        f"{data['images']:,} images of {data['name']}, {digest(data)}",
        f"engine {made['engine']}",
        ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
    ]
    return "; ".join(parts) + "."
